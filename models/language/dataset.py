"""Dataset of a run: corpus, splits, samples and facts, and the noise of a noise control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from models.base import DataError, SplitName
from models.common.data_files import OnBad, listed, unknown_embedded
from models.common.split import SPLITS
from models.common.table import declared_columns
from models.language.encoded import Encoded, encode
from models.language.readers.corpus import Corpus, from_records, read_corpus
from models.language.rows import Dialogues, Pairing, Rules, TokenWindows
from models.language.tokenizer import Tokenizer


def permutation_across_labels(labels: np.ndarray, seed: int) -> np.ndarray:
    """Random permutation that gives each request the answer of a request with another label.

    Random, not shifted by a constant: a model could learn which label answers which from a
    constant shift. Raises DataError if more than half of `labels` are equal.
    """
    counts = np.bincount(labels)
    if 2 * counts.max() > len(labels):
        raise DataError(
            f"the noise control cannot permute {len(labels)} answers: {counts.max()} of them "
            "answer one kind of request",
            where="data.control=noise",
            allowed="at most half of a split's exchanges per kind of request",
        )
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    for i in range(len(order)):
        while labels[order[i]] == labels[i]:
            # A swap with j fixes i and must not break j. No label has more than half, so such a j
            # exists and the loop ends with probability one.
            j = int(rng.integers(len(order)))
            if labels[order[j]] != labels[i] and labels[order[i]] != labels[j]:
                order[i], order[j] = order[j], order[i]
    return order


def permuted(exchanges: np.ndarray, labels: np.ndarray, seed: int, *, with_true: bool) -> Pairing:
    """Pair each exchange with the answer to a request of another label; then, if asked, its own."""
    answers = exchanges[permutation_across_labels(labels, seed)]
    if not with_true:
        return Pairing(exchanges, answers)
    return Pairing(np.tile(exchanges, 2), np.concatenate((answers, exchanges)), len(exchanges))


def read(path: str, answers: str | None, on_bad: OnBad, columns: Sequence[str] = ()) -> Corpus:
    """Read the corpus at `data.path`; `columns` as "name=meaning". Raises DataError."""
    if not path.startswith("embedded:"):
        answered = None if answers is None else Path(answers).expanduser()
        return read_corpus(Path(path).expanduser(), answered, on_bad, declared_columns(columns))
    from models.language import embedded

    if path not in embedded.READERS:
        raise unknown_embedded(path, embedded.READERS)
    return from_records(path, embedded.READERS[path]())


class Dataset:
    """Samples of each split. Neither text nor, for a large corpus, tokens are in memory."""

    def __init__(
        self, corpus: Corpus, splits: Mapping[SplitName, Sequence[str]], tokenizer: Tokenizer, rules: Rules
    ) -> None:
        """`splits`: their groups. Raises DataError if the training text is shorter than a sample."""
        self.tokenizer, self.rules, self.is_text = tokenizer, rules, corpus.is_text
        encoded, noise, labels = encode(corpus, tokenizer), rules.control == "noise", corpus.labels
        self.splits: dict[SplitName, TokenWindows | Dialogues] = {}
        for side, (name, numbers) in enumerate(corpus.members(splits).items()):
            if corpus.is_text:
                seeds = (rules.seed, side) if noise else None
                self.splits[name] = TokenWindows(encoded, corpus.names, numbers, tokenizer, rules, seeds)
                continue
            pairing = Pairing(numbers, numbers)
            if noise:
                pairing = permuted(numbers, labels[numbers], rules.seed + side, with_true=name != "train")
            self.splits[name] = Dialogues(encoded, corpus.names, labels, pairing, rules)
        tokens = self.splits["train"].tokens
        if corpus.is_text and tokens < rules.length:
            raise DataError(
                f"the training split has {tokens} tokens, less than one sample of {rules.length}",
                where="data.path, data.seq_len",
                allowed="at least one sample",
                fix=f"--set data.seq_len={max(8, tokens // 16)}  or add data",
            )
        self._facts = self._describe(corpus, encoded) | {
            "groups": {name: len(splits[name]) for name in SPLITS},
            "samples": {name: len(split) for name, split in self.splits.items()},
            "tokens": {name: split.tokens for name, split in self.splits.items()},
            **self._left_out(corpus),
        }

    def _describe(self, corpus: Corpus, encoded: Encoded) -> dict[str, Any]:
        assumed = "; ".join(f"{encoding}: {listed(names, 1)}" for encoding, names in corpus.encodings.items())
        return {
            "source": corpus.source.name,
            "kind": "text" if corpus.is_text else "conversations",
            "format": corpus.source.format,
            **({"encoding": assumed} if assumed else {}),
            "bytes": corpus.source.size or int(encoded.text_bytes.sum()),
            ("documents" if corpus.is_text else "exchanges"): len(corpus),
            "mean_tokens": round(len(encoded) / len(corpus), 1),
            "tokenizer": self.tokenizer.name,
            "seq_len": self.rules.length,
        }

    def _left_out(self, corpus: Corpus) -> dict[str, Any]:
        dialogues = [split for split in self.splits.values() if isinstance(split, Dialogues)]
        truncated = sum(split.truncated for split in dialogues)
        facts: dict[str, Any] = {"truncated_prompts": truncated, **corpus.left_out}
        facts["skipped_rows"] = corpus.skipped + sum(split.skipped for split in dialogues)
        if truncated:
            most = max(split.whole_length for split in dialogues)
            advice = f", or set  --seq-len {most}" if most > self.rules.length else ""
            facts["warning"] = f"{truncated} prompts lose their start: shorten them{advice}"
        return facts

    def facts(self) -> dict[str, Any]:
        return self._facts | ({"control": self._control} if self.rules.control == "noise" else {})

    @cached_property
    def _control(self) -> dict[str, dict[str, float]]:
        """Band of each metric; a noise control outside it indicates a leak."""
        train: Any = self.splits["train"]
        return self.splits["val"].control(train, self.tokenizer.size)
