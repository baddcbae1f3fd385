"""The permutation of a noise control: each sample gets what belongs to another group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gearshift.models.base import DataError


def of_other_groups(groups: NDArray[Any], seed: int | Sequence[int]) -> NDArray[np.int64]:
    """A random permutation of samples that gives each one of another group; `groups`: that of each.

    Random, not shifted by a constant: a model could learn from that which group answers which.
    Raises DataError if one group has more than half of the samples.
    """
    _, owner, counts = np.unique(groups, return_inverse=True, return_counts=True)
    if 2 * counts.max() > len(owner):
        raise DataError(
            f"the noise control cannot permute {len(owner)} samples: "
            f"one group has {counts.max()} of them",
            where="data.control=noise",
            allowed="no group, or kind of request, with more than half of the samples of a split",
        )
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(owner))
    while True:
        equal = np.flatnonzero(owner[order] == owner)
        if not len(equal):
            return order
        # No swap adds to the equal ones, and since no group has more than half, some swap ends one.
        for i, j in zip(equal, rng.integers(len(order), size=len(equal)), strict=True):
            if owner[order[i]] == owner[i]:
                order[[i, j]] = order[[j, i]]
