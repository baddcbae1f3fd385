"""The value of a metric at which a run has reached what it was started for."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from models.base import Goal

Sign = Literal["<=", ">=", "="]

PATTERN = r"^ *([A-Za-z_][A-Za-z0-9_./-]*) *(<=|>=|=) *([-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?) *$"
LEGAL = "a metric and a number, such as 'val_loss <= 1.9'; with = for the family's own goal"
_WRITTEN = re.compile(PATTERN)
_BETTER: Mapping[str, Sign] = {"min": "<=", "max": ">="}


@dataclass(frozen=True)
class Target:
    """A metric, and the value that is to be reached."""

    metric: str
    sign: Sign
    """`=`: whichever way is better, as the goal of the family says."""
    value: float

    def aimed(self, goal: Goal) -> Target | None:
        """With its sign, for `=` from `goal`; None where that is about another metric."""
        if self.sign != "=":
            return self
        if self.metric != goal.metric:
            return None
        return Target(self.metric, _BETTER[goal.direction], self.value)

    def is_reached(self, metrics: Mapping[str, float]) -> bool:
        """Whether an evaluation is as good, or better; NaN never is. For a sign that was aimed."""
        value = metrics.get(self.metric, math.nan)
        return value <= self.value if self.sign == "<=" else value >= self.value

    def text(self, sign: Sign | None = None) -> str:
        """As one writes it: `val_loss <= 1.9`; with another `sign` where one is given."""
        return f"{self.metric} {sign or self.sign} {self.value:g}"


def parse(written: str) -> Target:
    """What `METRIC <= NUMBER`, `>=` or `=` says. Raises ValueError where it is none of them."""
    found = _WRITTEN.match(written)
    try:
        if found is None:
            raise ValueError
        return Target(found[1], _sign(found[2]), float(found[3]))
    except ValueError:
        raise ValueError(f"{written!r} is no aim; legal: {LEGAL}") from None


def alternatives(target: Target) -> Sequence[str]:
    """The same with either way said."""
    return [target.text(sign) for sign in _BETTER.values()]


def _sign(text: str) -> Sign:
    return next(sign for sign in ("<=", ">=", "=") if sign == text)
