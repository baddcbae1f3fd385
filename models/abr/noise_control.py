"""The noise control: whose signal a response gets, and what can be scored without one."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.abr.config import CLASSES
from models.base import DataError

Control = Literal["real", "noise", "noise-signal"]
MARGIN = 0.04
"""Above chance, that a score may have."""


def others(patient: NDArray[np.str_], rng: np.random.Generator) -> NDArray[np.int64]:
    """For each response one of another patient, each taken once; drawn at random.

    Raises DataError where one patient has more than half of the responses.
    """
    who = np.unique(patient, return_inverse=True)[1]
    most = int(np.bincount(who).max())
    if 2 * most > len(who):
        raise DataError(
            f"the noise control cannot permute {len(who)} responses: {most} are of one patient",
            where="data.control",
            allowed="no patient with more than half of the responses of a split",
        )
    order = rng.permutation(len(who))
    while len(wrong := np.flatnonzero(who[order] == who)):
        # Swapped with anybody: what was right may become wrong, but less and less is.
        for i, j in zip(wrong, rng.integers(len(who), size=len(wrong)), strict=True):
            if who[order[j]] != who[i] and who[order[i]] != who[j]:
                order[i], order[j] = order[j], order[i]
    return order


def chance(target: NDArray[np.int64]) -> float:
    """The macro-F1 of the best guess that looks at nothing, from the shares of the classes.

    Always the most frequent class, or each class equally often, whichever scores more.
    """
    counts = np.bincount(target[target >= 0], minlength=CLASSES)
    if not counts.sum():
        return 0.0
    share = counts / counts.sum()
    constant = 2 * share.max() / (1 + share.max()) / CLASSES
    uniform = float(np.mean(2 * share / (1 + CLASSES * share)))
    return max(constant, uniform)


def band(target: NDArray[np.int64], control: Control) -> dict[str, dict[str, float]]:
    """Where macro-F1 must end. With the signal alone destroyed it is told and not bound.

    Age, level and rate may say something of the hearing loss.
    """
    by_chance = chance(target)
    bounds = {"max": by_chance + MARGIN} if control == "noise" else {}
    return {"val_macro_f1": {"chance": by_chance, **bounds}}
