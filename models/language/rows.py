"""Samples: rows of packed text or of one conversation, and their collation into batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import lgamma
from typing import Any, Literal

import numpy as np
import torch

from models.base import Draws
from models.common.data_files import BadRecords, OnBad
from models.common.family import padded
from models.common.predictions import spread_positions
from models.language.encoded import Encoded
from models.language.head import IGNORE
from models.language.readers.corpus import text_of
from models.language.tokenizer import Tokenizer

MULTIPLE = 8
"""Rows of unequal length are padded to a multiple of this, the tile of tensor cores."""


@dataclass(frozen=True)
class Row:
    """One sample: `inputs` and, for each, the next token or IGNORE in `labels`; int64 [time]."""

    inputs: np.ndarray
    labels: np.ndarray
    name: str
    """Name of the document or conversation."""
    starts: Sequence[int] = ()
    """Where further documents begin within the row."""
    bytes_per_token: float = 0.0
    """UTF-8 bytes of text per label, on average over the split."""
    matched: bool = False
    """In a noise control: the answer is the true one, evaluated for comparison only."""


def collate(rows: Sequence[Row], pad: int, length: int | None) -> dict[str, Any]:
    """Collate `rows`, padded at the end to `length`, or to the longest in multiples of 8.

    `input_ids`, `labels` int64 and `attention_mask` bool, each [batch, time]; `boundaries` int32,
    for Transformer.forward, where padding belongs to the last document of its row; `matched` bool
    [batch]; `units`, the number of labels; `meta`, the name of each row's source.
    """
    inputs = padded([row.inputs for row in rows], pad, length, MULTIPLE)
    labels = padded([row.labels for row in rows], IGNORE, length, MULTIPLE)
    count, time = inputs.shape
    sizes = torch.tensor([len(row.inputs) for row in rows])
    starts = [i * time + at for i, row in enumerate(rows) for at in (0, *row.starts)]
    return {
        "input_ids": inputs,
        "labels": labels,
        "attention_mask": torch.arange(time) < sizes[:, None],
        "boundaries": torch.tensor([*starts, count * time], dtype=torch.int32),
        "bytes_per_token": rows[0].bytes_per_token,
        "matched": torch.tensor([row.matched for row in rows]),
        "units": int((labels != IGNORE).sum()),
        "meta": [row.name for row in rows],
    }


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


_COUNTED = 10_000
"""Rows whose labels are counted for the chance of a noise control."""


class TokenWindows:
    """Rows of tokens from documents laid end to end; each token is an input and a label.

    The inputs of a document are the start token and its text, its labels are the text and the end
    token. A row may hold the end of one document and the start of the next; with
    `single_document` it never does, and the last row of a document is short. With `noise` (seeds)
    the labels of each row are shuffled, which leaves only token frequencies.
    """

    temperature = 0.8
    """The divisor of the logits where a row is continued."""

    def __init__(
        self,
        encoded: Encoded,
        names: np.ndarray,
        documents: np.ndarray,
        tokenizer: Tokenizer,
        rules: Rules,
        noise: Sequence[int] | None = None,
    ) -> None:
        """`documents` selects documents of `encoded`; `names` holds the name of each."""
        self.length = self.row_length = rules.length
        self._noise, self._tokenizer = noise, tokenizer
        self.encoded, self._names, self._documents = encoded, names, documents
        sizes = encoded.sizes[documents]
        self._starts = np.concatenate(([0], sizes.cumsum()))
        self._bytes_per_token = float(encoded.text_bytes[documents].sum() / self.tokens)
        self._blocks = self._starts if rules.single_document else self._starts[[0, -1]]
        """Where rows are cut anew."""
        self._rows_before = np.concatenate(([0], -(-np.diff(self._blocks) // self.length))).cumsum()

    @property
    def tokens(self) -> int:
        return int(self._starts[-1])

    @property
    def mean_length(self) -> float:
        """Mean number of tokens of a sample."""
        return float(self.length)

    def __len__(self) -> int:
        return int(self._rows_before[-1])

    def _tokens(self, low: int, high: int) -> np.ndarray:
        """Tokens at stream positions low to high, int64."""
        first, last = np.searchsorted(self._starts, (low, high - 1), side="right") - 1
        pieces = []
        for i in range(first, last + 1):
            begin, stop = max(low, int(self._starts[i])), min(high, int(self._starts[i + 1]))
            shift = int(self.encoded.offsets[self._documents[i]]) - int(self._starts[i])
            pieces.append(self.encoded.read(begin + shift, stop + shift))
        return np.concatenate(pieces).astype(np.int64)

    def sample(self, index: int, draws: Draws | None = None) -> Row:
        if not 0 <= index < len(self):
            raise IndexError(index)
        block = np.searchsorted(self._rows_before, index, side="right") - 1
        low = int(self._blocks[block] + (index - self._rows_before[block]) * self.length)
        high = min(low + self.length, int(self._blocks[block + 1]))
        first, last = np.searchsorted(self._starts, (low, high - 1), side="right") - 1
        inner = self._starts[first + 1 : last + 1] - low
        # One token more than the row holds, for its last label, unless a document ends there.
        ends = high == self._starts[last + 1]
        tokens = self._tokens(low, high if ends else high + 1)
        inputs = tokens[: high - low]
        labels = np.append(tokens[1:], self._tokenizer.end) if ends else tokens[1:].copy()
        labels[inner - 1] = self._tokenizer.end
        if self._noise is not None:
            np.random.default_rng((*self._noise, index)).shuffle(labels)
            inputs[1:] = labels[:-1]
        starts = inner.tolist() if self._noise is None else ()
        name = text_of(self._names[self._documents[first]])
        return Row(inputs, labels, name, starts, self._bytes_per_token)

    def prompt_and_target(self, index: int, most: int, targets: int) -> tuple[list[int], list[int]]:
        """The start of a row, at most half of it and `most` tokens, and what follows."""
        row = self.sample(index)
        tokens = [*row.inputs.tolist(), int(row.labels[-1])]
        prompt = min(most, self.length // 2, len(tokens) - 1)
        return tokens[:prompt], tokens[prompt : prompt + min(targets, self.length - prompt)]

    def control(self, train: TokenWindows, size: int) -> dict[str, dict[str, float]]:
        """The band of the loss on shuffled rows in nats per token, from token counts alone.

        `chance`: under the token frequencies of `train` (one added to each of the `size` counts).
        `min`: under each row's own frequencies, that is the logarithm of the number of its orders.
        A loss below it indicates a leak.
        """
        counted = (train.sample(i).labels for i in spread_positions(len(train), _COUNTED))
        frequencies = 1 + sum(np.bincount(labels, minlength=size) for labels in counted)
        logp = np.log(frequencies / frequencies.sum())
        chance = orders = 0.0
        for i in range(len(self)):
            counts = np.bincount(self.sample(i).labels, minlength=size)
            chance -= float(counts @ logp)
            orders += lgamma(counts.sum() + 1) - sum(lgamma(c + 1) for c in counts[counts > 1])
        return {"val_loss": {"min": orders / self.tokens, "chance": chance / self.tokens}}


@dataclass(frozen=True)
class Pairing:
    """Request and answer of each row, as exchange numbers."""

    requests: np.ndarray
    answers: np.ndarray
    num_matched: int = 0
    """So many pairs at the end are true ones in a noise control, evaluated for comparison only."""


class Dialogues:
    """One row for each pair of request and answer; labels are the answer and the end token.

    A long prompt keeps its first token and loses the oldest others. An answer is never cut: a pair
    with an answer longer than a row is a bad row.
    """

    temperature, row_length = 0.0, None

    def __init__(
        self, encoded: Encoded, names: np.ndarray, labels: np.ndarray, pairing: Pairing, rules: Rules
    ) -> None:
        """`names` holds the source of each request, `labels` its kind.

        Raises DataError if an answer does not fit and `on_bad` is stop.
        """
        self.length, self.encoded, self._names, self._labels = rules.length, encoded, names, labels
        sizes = encoded.sizes
        prompts, answers = sizes[2 * pairing.requests], sizes[2 * pairing.answers + 1]
        # The last token is only a label; at least one prompt token must remain.
        room = self.length + 1 - answers
        fits = room >= 1
        needed, bad_records = int(sizes[1::2].max()), BadRecords()  # also of the other splits
        is_possible = rules.longest is None or needed <= rules.longest
        fix = f"fit all:  --seq-len {needed}" if is_possible else ""
        for i in np.flatnonzero(~fits):
            problem = f"the answer has {answers[i]} tokens; data.seq_len is {self.length}"
            bad_records.add(text_of(names[pairing.requests[i]]), problem, fix)
        self.skipped = bad_records.finish(rules.on_bad if fits.any() else "stop", int(fits.sum()))
        matched = np.arange(len(fits)) >= len(fits) - pairing.num_matched
        is_cut = fits & (prompts > room) & ~matched
        self.truncated = int(is_cut.sum())
        tokens = int((prompts + answers)[is_cut].max(initial=1)) - 1
        self.whole_length = min(tokens, rules.longest or tokens)
        """Tokens per sample that no prompt exceeds, up to the most that the model allows."""
        self._requests, self._answers = pairing.requests[fits], pairing.answers[fits]
        self._matched = matched[fits]
        self._prompt_sizes, self._answer_sizes = np.minimum(prompts, room)[fits], answers[fits]
        self._bytes_per_token = float(encoded.text_bytes[2 * self._answers + 1].sum() / self.tokens)

    @property
    def tokens(self) -> int:
        return int(self._answer_sizes.sum())

    @property
    def mean_length(self) -> float:
        """Mean number of tokens of a sample."""
        return int((self._prompt_sizes + self._answer_sizes - 1).sum()) / len(self)

    def __len__(self) -> int:
        return len(self._requests)

    def prompt(self, index: int) -> np.ndarray:
        """Prompt tokens of a row."""
        whole = self.encoded.piece(2 * self._requests[index])
        count = int(self._prompt_sizes[index])
        return np.concatenate((whole[:1], whole[len(whole) - count + 1 :]))

    def answer(self, index: int) -> np.ndarray:
        """Answer tokens of a row, including the end token."""
        return self.encoded.piece(2 * self._answers[index] + 1)

    def sample(self, index: int, draws: Draws | None = None) -> Row:
        prompt, answer = self.prompt(index), self.answer(index)
        tokens = np.concatenate((prompt, answer)).astype(np.int64)
        labels = tokens[1:].copy()
        labels[: len(prompt) - 1] = IGNORE
        return Row(
            inputs=tokens[:-1],
            labels=labels,
            name=text_of(self._names[self._requests[index]]),
            bytes_per_token=self._bytes_per_token,
            matched=bool(self._matched[index]),
        )

    def prompt_and_target(self, index: int, most: int, targets: int) -> tuple[list[int], list[int]]:
        """The last tokens of a prompt, and the first ones of its answer, at most half of a row."""
        target = self.answer(index)[: min(targets, self.length // 2)].tolist()
        return self.prompt(index)[-min(most, self.length - len(target)) :].tolist(), target

    def control(self, train: Dialogues, size: int) -> dict[str, dict[str, float]]:
        """The bands of the metrics on permuted answers: chance is guessing one of the labels."""
        return {"exact_match": {"max": 2 / len(np.unique(self._labels))}, "matched_gap": {"max": 0.02}}
