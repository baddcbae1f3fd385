"""From settings to samples: the corpus, its splits, the tokenizer, and what to tell about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from models.base import DataError, SplitName
from models.common.faults import OnBad
from models.language.control import dialogue_chance, mismatched, text_chance, with_true_answers
from models.language.corpus import Corpus, assemble, read_corpus
from models.language.dialogues import Dialogues
from models.language.formats import EMBEDDED
from models.language.packing import Windows
from models.language.records import Document, Exchange
from models.language.tokenizer import Tokenizer

SPLITS: tuple[SplitName, ...] = ("train", "val", "test")


def read(path: str, answers: str | None, on_bad: OnBad) -> Corpus:
    """The corpus that `data.path` names. Raises DataError."""
    if path == "embedded:python":
        from models.language.embedded.python import read_documents

        return assemble(path, read_documents(), [], Counter())
    if path == "embedded:commands":
        from models.language.embedded.commands import read_conversations

        return assemble(path, [], read_conversations(), Counter())
    if path.startswith("embedded:"):
        near = get_close_matches(path, EMBEDDED, n=1, cutoff=0.0)[0]
        raise DataError(
            f"data.path '{path}' is not known",
            legal=", ".join(EMBEDDED),
            mend=f"nearest  {near}; write  --data {near}",
        )
    return read_corpus(
        Path(path).expanduser(), None if answers is None else Path(answers).expanduser(), on_bad
    )


@dataclass(frozen=True)
class Rules:
    """How records become samples."""

    length: int
    on_bad: OnBad
    control: Literal["real", "noise"]
    seed: int
    whole: bool
    """A row of text holds one document only."""


class Dataset:
    """The samples of each split."""

    def __init__(
        self,
        corpus: Corpus,
        splits: dict[SplitName, list[str]],
        tokenizer: Tokenizer,
        rules: Rules,
    ) -> None:
        """Raises DataError if a split gives no sample or the training text is too short."""
        self.source, self.left_out = corpus.source, corpus.left_out
        self.splits, self.tokenizer, self.rules = splits, tokenizer, rules
        self.labels = len({e.label for e in corpus.exchanges})
        self.text: dict[SplitName, Windows] = {}
        self.dialogues: dict[SplitName, Dialogues] = {}
        for number, name in enumerate(SPLITS):
            groups = set(splits[name])
            if corpus.documents:
                documents = [d for d in corpus.documents if d.group in groups]
                self.text[name] = self._windows(documents, number)
            else:
                exchanges = [e for e in corpus.exchanges if e.group in groups]
                self.dialogues[name] = self._dialogues(exchanges, name, number)
        if self.text and self.text["train"].tokens < rules.length:
            raise DataError(
                f"the data is too short: the training split has {self.text['train'].tokens} "
                f"tokens, one sample has {rules.length}",
                where="data.path, data.seq_len",
                legal="at least one sample",
                mend=f"--set data.seq_len={max(8, self.text['train'].tokens // 16)}, or more data",
            )

    def _windows(self, documents: Sequence[Document], number: int) -> Windows:
        rules = self.rules
        noise = (rules.seed, number) if rules.control == "noise" else None
        return Windows(documents, self.tokenizer, rules.length, whole=rules.whole, noise=noise)

    def _dialogues(self, exchanges: Sequence[Exchange], name: SplitName, number: int) -> Dialogues:
        rules = self.rules
        if rules.control == "noise":
            shuffled = mismatched(exchanges, rules.seed + number)
            exchanges = shuffled if name == "train" else with_true_answers(shuffled, exchanges)
        return Dialogues(exchanges, self.tokenizer, rules.length, rules.on_bad)

    def split(self, name: SplitName) -> Windows | Dialogues:
        """The samples of a split."""
        return self.text[name] if self.text else self.dialogues[name]

    @property
    def mean_length(self) -> float:
        """Mean over the training samples of their tokens."""
        if self.text:
            return float(self.rules.length)
        kept = self.dialogues["train"].kept
        return sum(len(tokens) - 1 for _, tokens, _ in kept) / len(kept)

    def facts(self) -> dict[str, Any]:
        """What a person should know: counts, splits, what was left out."""
        truncated = sum(d.truncated for d in self.dialogues.values())
        too_long = sum(d.skipped for d in self.dialogues.values())
        facts: dict[str, Any] = {
            "source": self.source,
            "kind": "text" if self.text else "conversations",
            "tokenizer": self.tokenizer.name,
            "seq_len": self.rules.length,
            "groups": {name: len(self.splits[name]) for name in SPLITS},
            "samples": {name: len(self.split(name)) for name in SPLITS},
            "tokens": {name: self.split(name).tokens for name in SPLITS},
            "truncated_prompts": truncated,
            **self.left_out,
        }
        facts["skipped_rows"] = self.left_out["skipped_rows"] + too_long
        if self.rules.control == "noise":
            facts["control"] = self._control()
        return facts

    def _control(self) -> dict[str, dict[str, float]]:
        """The band of each metric outside which the noise control tells a leak."""
        if self.text:
            chance = text_chance(self.text["train"], self.text["val"], self.tokenizer.size)
            return {"val_loss": {"min": chance["floor"], "chance": chance["chance"]}}
        return {
            "exact_match": {"max": dialogue_chance(self.labels)},
            "matched_gap": {"max": 0.02},
        }
