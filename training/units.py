"""How many units batches hold, and how sums over units become one mean, or a sum of means."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from models.base import Weight

Units = Mapping[str, int]
"""Units by term; the one term of a loss that has no more is called LOSS."""
LOSS = ""
_Value = TypeVar("_Value")


def by_term(value: _Value | Mapping[str, _Value]) -> Mapping[str, _Value]:
    """A weight or a sum by term, also where it is one alone."""
    return value if isinstance(value, Mapping) else {LOSS: value}


def added(weights: Iterable[Weight]) -> dict[str, int]:
    """The units of several batches together."""
    total: dict[str, int] = {}
    for weight in weights:
        for term, units in by_term(weight).items():
            total[term] = total.get(term, 0) + units
    return total


def counted(units: Units) -> int:
    """What counts as the units of a step: those of the first term."""
    return next(iter(units.values()))
