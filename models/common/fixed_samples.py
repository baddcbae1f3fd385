"""The few samples of a split that previews and predictions show, the same in every evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np

from models.base import Split


class FixedDraws:
    """See models/base.py: Draws; the same for every sample."""

    def rng(self) -> np.random.Generator:
        return np.random.default_rng(0)


def spread_positions(count: int, most: int) -> list[int]:
    """At most `most` evenly spaced positions below `count`, including the first and the last."""
    return sorted(set(np.linspace(0, count - 1, most).astype(int).tolist()))


def few_samples(split: Split, most: int) -> list[Any]:
    """At most `most` samples, spread over the split. May read from disk; raises DataError."""
    return [split.sample(index, FixedDraws()) for index in spread_positions(len(split), most)]
