"""Samples: rows of packed text or of one conversation, and their collation into batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import lgamma
from typing import Any, Literal

import numpy as np
import torch

from gearshift.models.base import Draws
from gearshift.models.common.data_files import BadRecords, OnBad
from gearshift.models.common.family import of_other_groups, padded, spread_positions
from gearshift.models.language.encoded import Encoded
from gearshift.models.language.head import IGNORE
from gearshift.models.language.readers.corpus import Corpus, text_of

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
    [batch]; `units`, the number of labels; `tokens`, that of inputs; `meta`, the name of each row's source.
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
        "tokens": int(sizes.sum()),
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
    `single_document` it never does, and the last row of a document is short. In a noise control
    the labels of each row are shuffled, which leaves only token frequencies.
    """

    temperature = 0.8
    """The divisor of the logits where a row is continued."""
    skipped = truncated = whole_length = 0
    """See Dialogues."""

    def __init__(
        self, encoded: Encoded, corpus: Corpus, numbers: np.ndarray, rules: Rules, side: int
    ) -> None:
        """`numbers` are the documents of a split, which is number `side`."""
        self.length = self.row_length = rules.length
        self._noise = (rules.seed, side) if rules.control == "noise" else None
        self._encoded = encoded
        self._names = corpus.names[numbers]
        self._offsets = encoded.offsets[numbers]
        self._starts = np.concatenate(([0], (encoded.sizes[numbers] - 1).cumsum()))
        self.tokens = int(self._starts[-1])
        self._bytes_per_token = float(encoded.text_bytes[numbers].sum() / self.tokens)
        self._blocks = self._starts if rules.single_document else self._starts[[0, -1]]
        """Where rows are cut anew."""
        self._rows_before = np.concatenate(([0], -(-np.diff(self._blocks) // self.length))).cumsum()
        self.mean_length = float(self.length)

    def __len__(self) -> int:
        return int(self._rows_before[-1])

    def sample(self, index: int, draws: Draws | None = None) -> Row:
        if not 0 <= index < len(self):
            raise IndexError(index)
        block = np.searchsorted(self._rows_before, index, side="right") - 1
        low = int(self._blocks[block] + (index - self._rows_before[block]) * self.length)
        high = min(low + self.length, int(self._blocks[block + 1]))
        first, last = np.searchsorted(self._starts, (low, high - 1), side="right") - 1
        pieces = []
        for i in range(first, last + 1):
            begin = max(low, int(self._starts[i]))
            stop = min(high, int(self._starts[i + 1]))
            shift = int(self._offsets[i] - self._starts[i])
            pieces.append(self._encoded.read(begin + shift, stop + shift + 1))
        inputs = np.concatenate([piece[:-1] for piece in pieces]).astype(np.int64)
        labels = np.concatenate([piece[1:] for piece in pieces]).astype(np.int64)
        starts = (self._starts[first + 1 : last + 1] - low).tolist()
        if self._noise is not None:
            np.random.default_rng((*self._noise, index)).shuffle(labels)
            inputs[1:] = labels[:-1]
            starts = []
        return Row(inputs, labels, text_of(self._names[first]), starts, self._bytes_per_token)

    def control(self, train: TokenWindows, size: int) -> dict[str, dict[str, float]]:
        """The band of the loss on shuffled rows in nats per token, from token counts alone.

        `chance`: under the token frequencies of `train` (one added to each of the `size` counts).
        `min`: under each row's own frequencies, that is the logarithm of the number of its orders.
        A loss below it indicates a leak.
        """
        frequencies = np.ones(size, dtype=np.int64)
        for i in spread_positions(len(train), _COUNTED):
            frequencies += np.bincount(train.sample(i).labels, minlength=size)
        logp = np.log(frequencies / frequencies.sum())
        chance = orders = 0.0
        for i in range(len(self)):
            counts = np.bincount(self.sample(i).labels, minlength=size)
            chance -= float(counts @ logp)
            orders += lgamma(counts.sum() + 1) - sum(lgamma(c + 1) for c in counts[counts > 1])
        return {"val_loss": {"min": orders / self.tokens, "chance": chance / self.tokens}}


class Dialogues:
    """A row for each conversation; labels are its answers, each with what ends it.

    A conversation longer than a row becomes several rows, and each answer is learned in one of them.
    After the first row its new turns take up to half a row, and the newest history the rest. A long
    prompt keeps its first token and loses the oldest others. An answer is never cut: an exchange
    with an answer longer than a row is a bad row. In a noise control each exchange is a row, and
    each request gets the answer to one of another kind; evaluation also has the true pairs.
    """

    temperature = 0.0
    row_length = None

    def __init__(
        self, encoded: Encoded, corpus: Corpus, numbers: np.ndarray, rules: Rules, side: int
    ) -> None:
        """`numbers` are the exchanges of a split, which is number `side`; training comes first.

        Raises DataError if an answer does not fit and `on_bad` is stop.
        """
        self.length = rules.length
        self._encoded = encoded
        self._labels = corpus.labels
        offsets = encoded.offsets
        answers = encoded.sizes[1::2]
        exchanges = np.arange(len(answers))
        # The first exchange of the row that each exchange is in.
        first = np.maximum.accumulate(np.where(encoded.begins_row[::2], exchanges, 0))
        if rules.control == "noise":
            others = numbers[of_other_groups(corpus.labels[numbers], rules.seed + side)]
            rows = np.stack(
                (numbers, others, others + 1)
            )  # request, first answer, the end of answers
            is_true = np.zeros(len(numbers), dtype=bool)
            if side > 0:
                rows = np.concatenate((rows, np.stack((numbers, numbers, numbers + 1))), axis=1)
                is_true = np.repeat([False, True], len(numbers))
        else:
            begins = numbers[self._begins(first[numbers], numbers)]
            ends = numbers[np.append(np.searchsorted(numbers, begins[1:]), len(numbers)) - 1] + 1
            rows = np.stack((begins, begins, ends))
            is_true = np.zeros(len(begins), dtype=bool)
        # The last token is only a label; at least one prompt token must remain.
        starts = offsets[2 * first[rows[0]]]
        prompts = offsets[2 * rows[0] + 1] - starts
        sizes = offsets[2 * rows[2]] - offsets[2 * rows[1] + 1]
        room = self.length + 1 - sizes
        fits = room >= 1
        # also of the other splits
        needed = int(answers.max())
        bad_records = BadRecords()
        is_possible = rules.longest is None or needed <= rules.longest
        for i in np.flatnonzero(~fits):
            problem = f"the answer has {sizes[i]} tokens; data.seq_len is {self.length}"
            fix = f"fit all:  --seq-len {needed}" if is_possible else ""
            bad_records.add(text_of(corpus.names[rows[0, i]]), problem, fix)
        self.skipped = bad_records.finish(rules.on_bad if fits.any() else "stop", int(fits.sum()))
        is_cut = fits & (prompts > room) & ~is_true
        self.truncated = int(is_cut.sum())
        tokens = int((prompts + sizes)[is_cut].max(initial=1)) - 1
        self.whole_length = min(tokens, rules.longest or tokens)
        """Tokens per sample that no prompt exceeds, up to the most that the model allows."""
        self._rows = rows[:, fits]
        self._starts = starts[fits]
        self._is_true = is_true[fits]
        self._prompt_sizes = np.minimum(prompts, room)[fits]
        self._names = corpus.names[self._rows[0]]
        self.tokens = self._total(answers)
        self._bytes_per_token = self._total(encoded.text_bytes[1::2]) / self.tokens
        self.mean_length = float((self._prompt_sizes + sizes[fits] - 1).mean())
        """Mean number of tokens of a sample."""

    def _begins(self, first: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """The positions in `numbers` where a row begins; `first`: the first exchange of each one's row."""
        begins = np.flatnonzero(np.diff(first, prepend=-1))
        sizes = np.diff(self._encoded.offsets[::2])[numbers]
        ends = np.cumsum(sizes)
        stops = np.append(begins[1:], len(numbers))
        cuts: list[int] = []
        for row in np.flatnonzero(np.add.reduceat(sizes, begins) > self.length + 1):
            at = int(begins[row])
            room = self.length + 1
            while ends[stops[row] - 1] - ends[at] + sizes[at] > room:
                next_row = int(np.searchsorted(ends, ends[at] - sizes[at] + room, side="right"))
                at = max(at + 1, next_row)
                if at == stops[row]:
                    break
                cuts.append(at)
                room = (self.length + 1) // 2
        return np.sort(np.append(begins, cuts).astype(np.int64))

    def _total(self, counts: np.ndarray) -> int:
        """The sum over the answers of all rows; `counts`: one for each answer of the data."""
        sums = np.append(0, counts.cumsum())
        return int((sums[self._rows[2]] - sums[self._rows[1]]).sum())

    def __len__(self) -> int:
        return len(self._starts)

    def sample(self, index: int, draws: Draws | None = None) -> Row:
        encoded = self._encoded
        (request, answer, end) = self._rows[:, index].tolist()
        start = int(self._starts[index])
        asked = int(encoded.offsets[2 * request + 1])
        newest = encoded.read(asked - int(self._prompt_sizes[index]) + 1, asked)
        edges = encoded.offsets[2 * answer + 1 : 2 * end + 1]
        answers = encoded.read(int(edges[0]), int(edges[-1]))
        tokens = np.concatenate((encoded.read(start, start + 1), newest, answers)).astype(np.int64)
        sizes = np.diff(edges)  # of an answer, of what is before the next one, and so on
        is_label = np.repeat(np.arange(len(sizes)) % 2 == 0, sizes)
        labels = tokens[1:].copy()
        labels[: len(newest)] = IGNORE
        labels[len(newest) :][~is_label] = IGNORE
        name = text_of(self._names[index])
        is_true = bool(self._is_true[index])
        return Row(tokens[:-1], labels, name, (), self._bytes_per_token, is_true)

    def control(self, train: Dialogues, size: int) -> dict[str, dict[str, float]]:
        """The bands of the metrics on permuted answers: chance is guessing one of the labels."""
        return {
            "exact_match": {"max": 2 / len(np.unique(self._labels))},
            "matched_gap": {"max": 0.02},
        }


Samples = TokenWindows | Dialogues
"""The samples of a split."""
