"""Durations of training as written in settings: steps, a share of the run, or epochs."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

_SHARE = re.compile(r"^([0-9]+(?:\.[0-9]+)?) ?%$")
_EPOCHS = re.compile(r"^([0-9]{1,12}(?:\.[0-9]+)?) epochs?$")
MOST_STEPS = 10**12
FORMS = "a number of steps, a share such as '5%', or epochs such as '2 epochs'"


def validate(length: int | str) -> int | str:
    """`length` unchanged. Raises ValueError if it is not one of FORMS, or beyond MOST_STEPS."""
    if steps(length, 1000, 100_000) > MOST_STEPS:
        raise ValueError(f"{length!r} is too long; allowed: {FORMS}")
    return length


def validate_cadence(length: int | str) -> int | str:
    """`length` unchanged. Raises ValueError if it is not one of FORMS, or is zero."""
    if not steps(length, 1000, 100_000):
        raise ValueError(f"{length!r} is zero; allowed: {FORMS}")
    return validate(length)


def steps(length: int | str, steps_per_epoch: int, total_steps: int) -> int:
    """`length` in steps, rounded to the nearest; at least 1 unless it is 0.

    Raises ValueError if `length` is negative, above 100% or not one of FORMS.
    """
    if isinstance(length, int):
        if length < 0:
            raise ValueError(f"{length} is negative; allowed: {FORMS}")
        return length
    if match := _SHARE.match(length.strip()):
        if float(match[1]) > 100:
            raise ValueError(f"{length!r} is more than the run; allowed: {FORMS}")
        exact = float(match[1]) / 100 * total_steps
    elif match := _EPOCHS.match(length.strip()):
        exact = float(match[1]) * steps_per_epoch
    else:
        raise ValueError(f"{length!r} is not a duration; allowed: {FORMS}")
    return max(1, round(exact)) if exact > 0 else 0


def epochs(length: int | str) -> float | None:
    """The number of epochs in `length`; None if it is in steps or a share."""
    match = _EPOCHS.match(length.strip()) if isinstance(length, str) else None
    return float(match[1]) if match else None


Duration = Annotated[int | str, AfterValidator(validate)]
"""The type of a setting that is a duration."""
Cadence = Annotated[int | str, AfterValidator(validate_cadence)]
"""The type of a setting that is the distance between two repetitions."""
