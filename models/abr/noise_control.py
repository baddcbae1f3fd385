"""The noise control: responses exchanged between patients, and the score expected by chance."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.base import DataError

Control = Literal["real", "noise", "noise-signal"]
MARGIN = 0.04
"""How far above chance macro-F1 may be."""
R2_MARGIN = 0.02
"""How far above chance the explained variance of masked points may be."""


def permute_responses(patient: NDArray[np.str_], rng: np.random.Generator) -> NDArray[np.int64]:
    """A random permutation that gives each response one of another patient.

    Raises DataError if one patient has more than half of the responses.
    """
    number = np.unique(patient, return_inverse=True)[1]
    most = int(np.bincount(number).max())
    if 2 * most > len(number):
        raise DataError(
            f"the noise control cannot permute {len(number)} responses: one patient has {most}",
            where="data.control",
            allowed="no patient with more than half of the responses of a split",
        )
    order = rng.permutation(len(number))
    while len(wrong := np.flatnonzero(number[order] == number)):
        # A swap with a random response never adds a wrong one, so their number falls to 0.
        for i, j in zip(wrong, rng.integers(len(number), size=len(wrong)), strict=True):
            if number[order[j]] != number[i] and number[order[i]] != number[j]:
                order[i], order[j] = order[j], order[i]
    return order


def chance_macro_f1(target: NDArray[np.int64]) -> float:
    """The macro-F1 of the best guess without any input, from the shares of the classes.

    The better of two: always the most frequent class, or each class equally often.
    """
    counts = np.unique(target[target >= 0], return_counts=True)[1]
    if not len(counts):
        return 0.0
    share, classes = counts / counts.sum(), len(counts)
    constant = 2 * share.max() / (1 + share.max()) / classes
    uniform = float(np.mean(2 * share / (1 + classes * share)))
    return max(constant, uniform)


def chance_band(target: NDArray[np.int64], control: Control) -> dict[str, dict[str, float]]:
    """The bounds of macro-F1 in a noise control.

    Without the signal alone (`noise-signal`) there is no bound: age, level and rate may carry
    information about the hearing loss.
    """
    chance = chance_macro_f1(target)
    bounds = {"max": chance + MARGIN} if control == "noise" else {}
    return {"val_macro_f1": {"chance": chance, **bounds}}


def masked_band(
    train: NDArray[np.float32],
    val: NDArray[np.float32],
    hidden: NDArray[np.bool_],
    control: Control,
) -> dict[str, dict[str, float]]:
    """The bounds of the explained variance of the masked points of `val` in a noise control.

    Chance is the mean of `train`, point by point: responses of other patients give no more. All
    are [response, 200]. Without the signal alone there is no bound: the level of a response
    informs about its amplitude.
    """
    errors = (val - train.mean(0, dtype=np.float64))[hidden]
    chance = float(1 - np.square(errors).mean() / val[hidden].var(dtype=np.float64))
    bounds = {"max": chance + R2_MARGIN} if control == "noise" else {}
    return {"val_masked_r2": {"chance": chance, **bounds}}
