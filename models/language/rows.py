"""Samples: rows of packed text, and the collation of all rows into batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import lgamma
from typing import Any, Literal

import numpy as np
import torch

from gearshift.models.base import Draws
from gearshift.models.common.data_reports import OnBad
from gearshift.models.common.family import padded
from gearshift.models.language.encoded import Encoded
from gearshift.models.language.model import IGNORE
from gearshift.models.language.readers.corpus import Corpus, text_of

Bands = dict[str, dict[str, float]]
"""Bounds of metrics in a noise control: min or max."""
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
    source: int = 0
    """The number of its source. In a noise control -1: the answer is the true one, evaluated for
    comparison only."""


def collate(
    rows: Sequence[Row],
    pad: int,
    length: int | None,
) -> dict[str, Any]:
    """Collate `rows`, padded at the end to `length`, or to the longest in multiples of 8.

    `input_ids`, `labels` int64 and `attention_mask` bool, each [batch, time]; `boundaries` int32,
    for Transformer.forward, where padding belongs to the last document of its row; `source`
    [batch], the number of each; `units`, the number of labels; `tokens`, that of inputs; `meta`,
    the name of each row's source.
    """
    inputs = padded([row.inputs for row in rows], pad, length, MULTIPLE)
    labels = padded([row.labels for row in rows], IGNORE, length, MULTIPLE)
    sizes = torch.tensor([len(row.inputs) for row in rows])
    time = inputs.shape[1]

    boundaries: list[int] = []
    for number, row in enumerate(rows):
        boundaries += [number * time + start for start in (0, *row.starts)]
    boundaries.append(labels.numel())

    return {
        "input_ids": inputs,
        "labels": labels,
        "attention_mask": torch.arange(time) < sizes[:, None],
        "boundaries": torch.tensor(boundaries, dtype=torch.int32),
        "bytes_per_token": rows[0].bytes_per_token,
        "source": torch.tensor([row.source for row in rows]),
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


class TokenWindows:
    """Rows of tokens from documents laid end to end; each token is an input and a label.

    The inputs of a document are the start token and its text, its labels are the text and the end
    token. A row may hold the end of one document and the start of the next; with
    `single_document` it never does, and the last row of a document is short. In a noise control
    the labels of each row are shuffled, which leaves only token frequencies.
    """

    skipped = truncated = 0
    """See Dialogues."""

    def __init__(
        self,
        encoded: Encoded,
        corpus: Corpus,
        numbers: np.ndarray,
        rules: Rules,
        side: int,
    ) -> None:
        """`numbers` are the documents of a split, which is number `side`."""
        self.length = rules.length
        self.mean_length = float(rules.length)
        self._is_noise = rules.control == "noise"
        self._seed = (rules.seed, side)
        self._encoded = encoded
        self._names = corpus.names[numbers]
        # The last token of a document is no input.
        self._starts = np.append(0, (encoded.sizes[numbers] - 1).cumsum())
        self._shifts = encoded.offsets[numbers] - self._starts[:-1]
        self.tokens = int(self._starts[-1])
        text_bytes = encoded.text_bytes[numbers].sum()
        self.bytes_per_token = float(text_bytes / self.tokens)
        self._blocks = self._starts if rules.single_document else self._starts[[0, -1]]
        """Where rows are cut anew."""
        # Rows are numbered through; the last one of a block may be short.
        rows = -(-np.diff(self._blocks) // self.length)
        self._rows_before = np.append(0, rows.cumsum())

    def __len__(self) -> int:
        return int(self._rows_before[-1])

    def sample(self, index: int, draws: Draws | None = None) -> Row:
        block = np.searchsorted(self._rows_before, index, side="right") - 1
        row = index - self._rows_before[block]
        low = self._blocks[block] + row * self.length
        high = min(low + self.length, self._blocks[block + 1])
        first, last = np.searchsorted(self._starts, (low, high - 1), side="right") - 1

        # The part of each document that is in the row.
        edges = self._starts[first : last + 2].clip(low, high)
        shifts = self._shifts[first : last + 1]
        begins = edges[:-1] + shifts
        ends = edges[1:] + shifts + 1
        pieces = list(map(self._encoded.read, begins.tolist(), ends.tolist()))
        inputs = np.concatenate([piece[:-1] for piece in pieces]).astype(np.int64)
        labels = np.concatenate([piece[1:] for piece in pieces]).astype(np.int64)
        starts = (edges[1:-1] - low).tolist()

        if self._is_noise:
            # By the index: a row is the same in each epoch and in each worker.
            rng = np.random.default_rng((*self._seed, index))
            rng.shuffle(labels)
            inputs[1:] = labels[:-1]
            starts = []
        return Row(
            inputs,
            labels,
            text_of(self._names[first]),
            starts,
            self.bytes_per_token,
        )

    def control(self) -> Bands:
        """The least loss on shuffled rows in nats per token; one below it indicates a leak.

        The logarithm of the number of orders of each row, from token counts alone.
        """
        orders = 0.0
        for i in range(len(self)):
            labels = self.sample(i).labels
            _, repeats = np.unique(labels, return_counts=True)
            orders += lgamma(len(labels) + 1) - sum(map(lgamma, repeats + 1))
        return {"val_loss": {"min": orders / self.tokens}}
