"""Dataset of a run: corpus, splits, samples and facts, and the noise of a noise control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import lgamma
from pathlib import Path
from typing import Any, Literal

import numpy as np

from models.base import DataError, SplitName
from models.common.data_files import OnBad, unknown_embedded
from models.common.split import SPLITS
from models.common.table import declared_columns
from models.language.encoded import encode
from models.language.readers.corpus import Corpus, from_records, read_corpus
from models.language.rows import Dialogues, Pairing, TokenWindows, true_pairing
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


def permute_answers(exchanges: np.ndarray, labels: np.ndarray, seed: int) -> Pairing:
    """Pair each of `exchanges` with the answer to a request of another label."""
    answers = exchanges[permutation_across_labels(labels, seed)]
    return Pairing(exchanges, answers, np.zeros(len(exchanges), dtype=bool))


def with_true_answers(permuted: Pairing) -> Pairing:
    """`permuted` followed by the true pairs, which are marked `matched`."""
    requests = permuted.requests
    return Pairing(
        np.concatenate((requests, requests)),
        np.concatenate((permuted.answers, requests)),
        np.repeat([False, True], len(requests)),
    )


def text_chance(train: TokenWindows, val: TokenWindows, size: int) -> dict[str, float]:
    """Expected loss on shuffled rows of `val` in nats per token, from token counts alone.

    `chance`: under the token frequencies of `train` (one added to each of the `size` counts).
    `floor`: under each row's own frequencies, that is the logarithm of the number of its orders.
    A loss below the floor indicates a leak.
    """
    frequencies = train.label_counts(size) + 1
    logp = np.log(frequencies / frequencies.sum())
    chance = orders = 0.0
    for i in range(len(val)):
        counts = np.bincount(val.row(i).labels, minlength=size)
        chance -= float(counts @ logp)
        orders += lgamma(counts.sum() + 1) - sum(lgamma(c + 1) for c in counts[counts > 1])
    return {"chance": chance / val.tokens, "floor": orders / val.tokens}


def read(path: str, answers: str | None, on_bad: OnBad, columns: Sequence[str] = ()) -> Corpus:
    """Read the corpus at `data.path`; `columns` as "name=meaning". Raises DataError."""
    if path == "embedded:python":
        from models.language import embedded

        return from_records(path, embedded.read_documents())
    if path == "embedded:commands":
        from models.language import embedded

        return from_records(path, embedded.read_conversations())
    if path.startswith("embedded:"):
        from models.language.formats import EMBEDDED

        raise unknown_embedded(path, EMBEDDED)
    answered = None if answers is None else Path(answers).expanduser()
    return read_corpus(Path(path).expanduser(), answered, on_bad, declared_columns(columns))


Numbers = Mapping[SplitName, np.ndarray]


def assign_splits(corpus: Corpus, splits: Mapping[SplitName, Sequence[str]]) -> Numbers:
    """The numbers of the documents or exchanges of each split, in corpus order."""
    sides = {group: side for side, name in enumerate(SPLITS) for group in splits[name]}
    side_numbers = (sides.get(group, len(SPLITS)) for group in corpus.groups)
    side_of = np.fromiter(side_numbers, dtype=np.int8, count=len(corpus))
    return {name: np.flatnonzero(side_of == side) for side, name in enumerate(SPLITS)}


@dataclass(frozen=True)
class Rules:
    """Settings that turn records into samples."""

    length: int
    on_bad: OnBad
    control: Literal["real", "noise"]
    seed: int
    single_document: bool
    """A row of text holds one document only."""
    longest: int | None = None
    """The length that the model allows; None: any."""


class Dataset:
    """Samples of each split. Neither text nor, for a large corpus, tokens are in memory."""

    def __init__(
        self,
        corpus: Corpus,
        members: Numbers,
        groups: Mapping[SplitName, int],
        tokenizer: Tokenizer,
        rules: Rules,
    ) -> None:
        """`groups`: their number in each split.

        Raises DataError if the training text is shorter than one sample.
        """
        self.tokenizer, self.rules = tokenizer, rules
        self._encoded, self._labels = encode(corpus, tokenizer), corpus.labels
        self._groups, self._left_out = groups, corpus.left_out
        self._source = self._describe_corpus(corpus)
        self.text: dict[SplitName, TokenWindows] = {}
        self.dialogues: dict[SplitName, Dialogues] = {}
        for side, name in enumerate(SPLITS):
            numbers, names = members[name], corpus.names
            is_noise = rules.control == "noise"
            if corpus.is_text:
                self.text[name] = TokenWindows(
                    self._encoded, names, numbers, tokenizer, rules.length,
                    single_document=rules.single_document,
                    noise=(rules.seed, side) if is_noise else None,
                )  # fmt: skip
                continue
            pairing = true_pairing(numbers)
            if is_noise:
                pairing = permute_answers(numbers, corpus.labels[numbers], rules.seed + side)
                pairing = pairing if name == "train" else with_true_answers(pairing)
            self.dialogues[name] = Dialogues(
                self._encoded, names, pairing, rules.length, rules.on_bad, rules.longest
            )
        if self.text and self.text["train"].tokens < rules.length:
            raise DataError(
                f"the training split has {self.text['train'].tokens} tokens, less than one sample "
                f"of {rules.length}",
                where="data.path, data.seq_len",
                allowed="at least one sample",
                fix=f"--set data.seq_len={max(8, self.text['train'].tokens // 16)}  or add data",
            )

    def split(self, name: SplitName) -> TokenWindows | Dialogues:
        """Samples of a split."""
        return self.text[name] if self.text else self.dialogues[name]

    @property
    def mean_length(self) -> float:
        """Mean number of tokens of a training sample."""
        if self.text:
            return float(self.rules.length)
        rows = self.dialogues["train"]
        return int((rows.prompt_sizes + rows.answer_sizes - 1).sum()) / len(rows)

    def facts(self) -> dict[str, Any]:
        truncated = sum(d.truncated for d in self.dialogues.values())
        too_long = sum(d.skipped for d in self.dialogues.values())
        facts: dict[str, Any] = {
            **self._source,
            "tokenizer": self.tokenizer.name,
            "seq_len": self.rules.length,
            "groups": self._groups,
            "samples": {name: len(self.split(name)) for name in SPLITS},
            "tokens": {name: self.split(name).tokens for name in SPLITS},
            "truncated_prompts": truncated,
            **self._left_out,
        }
        facts["skipped_rows"] = self._left_out["skipped_rows"] + too_long
        if truncated:
            most = max(d.whole_length for d in self.dialogues.values())
            advice = f", or set  --seq-len {most}" if most > self.rules.length else ""
            facts["warning"] = f"{truncated} prompts lose their start: shorten them{advice}"
        if self.rules.control == "noise":
            facts["control"] = self._control
        return facts

    def _describe_corpus(self, corpus: Corpus) -> dict[str, Any]:
        kind = "documents" if corpus.is_text else "exchanges"
        assumed = "; ".join(
            f"{encoding}: {names[0]}" + (f" and {len(names) - 1} more" if names[1:] else "")
            for encoding, names in corpus.encodings.items()
        )
        return {
            "source": corpus.source.name,
            "kind": "text" if corpus.is_text else "conversations",
            "format": corpus.source.format,
            **({"encoding": assumed} if assumed else {}),
            "bytes": corpus.source.size or int(self._encoded.text_bytes.sum()),
            kind: len(corpus),
            "mean_tokens": round(len(self._encoded.stream) / len(corpus), 1),
        }

    @cached_property
    def _control(self) -> dict[str, dict[str, float]]:
        """Band of each metric; a noise control outside it indicates a leak."""
        if self.text:
            bounds = text_chance(self.text["train"], self.text["val"], self.tokenizer.size)
            return {"val_loss": {"min": bounds["floor"], "chance": bounds["chance"]}}
        chance = 1 / len(np.unique(self._labels))  # of guessing one of the labels
        return {"exact_match": {"max": 2 * chance}, "matched_gap": {"max": 0.02}}
