"""Lengths of training as a person writes them: steps, a share of the run, or epochs."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

_SHARE = re.compile(r"^([0-9]+(?:\.[0-9]+)?) ?%$")
_EPOCHS = re.compile(r"^([0-9]+(?:\.[0-9]+)?) epochs?$")
LEGAL = "a number of steps, a share such as '5%', or epochs such as '2 epochs'"


def check(length: int | str) -> int | str:
    """`length` as it came; raises ValueError where it is none."""
    steps(length, 1, 1)
    return length


def check_cadence(length: int | str) -> int | str:
    """`length` as it came; raises ValueError where it is none, or never comes round again."""
    if not steps(length, 1000, 100_000):
        raise ValueError(f"{length!r} is no time at all; legal: {LEGAL}")
    return length


def steps(length: int | str, steps_per_epoch: int, total_steps: int) -> int:
    """`length` in steps, rounded to the nearest; at least 1 unless it is 0.

    Raises ValueError where `length` is negative or reads as nothing in LEGAL.
    """
    if isinstance(length, int):
        if length < 0:
            raise ValueError(f"{length} is negative; legal: {LEGAL}")
        return length
    if match := _SHARE.match(length.strip()):
        exact = float(match[1]) / 100 * total_steps
    elif match := _EPOCHS.match(length.strip()):
        exact = float(match[1]) * steps_per_epoch
    else:
        raise ValueError(f"{length!r} is no length; legal: {LEGAL}")
    return max(1, round(exact)) if exact > 0 else 0


def epochs(length: int | str) -> float | None:
    """The epochs that `length` is written in; None where it is steps or a share."""
    match = _EPOCHS.match(length.strip()) if isinstance(length, str) else None
    return float(match[1]) if match else None


Duration = Annotated[int | str, AfterValidator(check)]
"""The type of a setting that is a length."""
Cadence = Annotated[int | str, AfterValidator(check_cadence)]
"""The type of a setting that says how often."""
