"""What a sample is, and how samples become a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from models.language.head import IGNORE

MULTIPLE = 8
"""Rows of unequal length are padded to a multiple of this: the tile of tensor cores."""


@dataclass(frozen=True)
class Row:
    """One sample: tokens, and after each the token to predict or IGNORE; both int64 [time]."""

    inputs: np.ndarray
    labels: np.ndarray
    text_bytes: int
    """UTF-8 bytes of the text that the labels stand for."""
    name: str
    """The document or conversation it is from."""
    documents: np.ndarray | None = None
    """The number of each token's document within the row; None: they are all of one."""
    matched: bool = False
    """In a noise control: the true answer, only measured for comparison."""


def collate(rows: Sequence[Row], pad: int, length: int | None) -> dict[str, Any]:
    """A batch of `rows`, padded at the end to `length`, or to the longest, in multiples of 8.

    `input_ids`, `labels` int64 and `attention_mask` bool, each [batch, time]; `documents` likewise,
    or None if no row holds more than one; `text_bytes` int64 and `matched` bool, [batch]; `units`,
    the number of labels; `meta`, the name of each row's source.
    """
    longest = max(len(row.inputs) for row in rows)
    time = length or -(-longest // MULTIPLE) * MULTIPLE
    inputs = np.full((len(rows), time), pad, dtype=np.int64)
    labels = np.full((len(rows), time), IGNORE, dtype=np.int64)
    valid = np.zeros((len(rows), time), dtype=bool)
    documents = np.zeros((len(rows), time), dtype=np.int64)
    for i, row in enumerate(rows):
        n = len(row.inputs)
        inputs[i, :n], labels[i, :n], valid[i, :n] = row.inputs, row.labels, True
        if row.documents is not None:
            documents[i, :n] = row.documents
    packed = any(row.documents is not None for row in rows)
    return {
        "input_ids": torch.from_numpy(inputs),
        "labels": torch.from_numpy(labels),
        "attention_mask": torch.from_numpy(valid),
        "documents": torch.from_numpy(documents) if packed else None,
        "text_bytes": torch.tensor([row.text_bytes for row in rows]),
        "matched": torch.tensor([row.matched for row in rows]),
        "units": int((labels != IGNORE).sum()),
        "meta": [row.name for row in rows],
    }
