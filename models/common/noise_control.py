"""The input of a noise control: that of another group."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.base import DataError


def samples_of_others(groups: Sequence[str] | NDArray[np.str_], seed: Sequence[int]) -> NDArray[np.int64]:
    """A random permutation of samples that gives each one of another group; `groups`: that of each.

    Raises DataError if one group has more than half of the samples.
    """
    _, owner, counts = np.unique(groups, return_inverse=True, return_counts=True)
    largest = int(counts.max())
    if 2 * largest > len(owner):
        raise DataError(
            f"the noise control cannot permute {len(owner)} samples: one group has {largest} of them",
            where="data.control",
            allowed="no group with more than half of the samples of a split",
        )
    rng = np.random.default_rng(seed)
    # Sorted by group in random order; a shift by the largest count always changes the group.
    rank = rng.permutation(len(counts))[owner]
    order = np.lexsort((rng.random(len(owner)), rank))
    others = np.empty(len(owner), dtype=np.int64)
    others[order] = np.roll(order, -largest)
    return others
