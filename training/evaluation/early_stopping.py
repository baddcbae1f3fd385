"""Early stopping: the best value so far, patience, and the target value of `stop.at`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from gearshift.training.callbacks.base import Facts, Numbers
from gearshift.training.settings import TARGET_FORMS, TARGET_PATTERN

if TYPE_CHECKING:
    from gearshift.models.base import Goal
    from gearshift.training.settings import Stop

Direction = Literal["min", "max"]
Sign = Literal["<=", ">=", "="]
_TARGET = re.compile(TARGET_PATTERN)
_SIGNS: Mapping[str, Sign] = {"min": "<=", "max": ">="}


class EarlyStopping:
    """Follows the value of a metric over evaluations.

    Any improvement makes a value the best; patience counts evaluations since the value last
    improved by more than `min_delta`. The first value is an improvement; NaN and infinities never
    are.
    """

    def __init__(self, stop: Stop, keep_best: int = 1):
        """`keep_best`: how many of the best values are remembered."""
        self._patience = stop.patience
        self._keep_best = keep_best
        self._best_values: list[float] = []
        self._min_delta = stop.min_delta if self._patience is not None else 0.0
        self.best: dict[str, Any] | None = None
        """The best value and its step."""
        self.waited = 0
        """Evaluations since the last improvement."""
        self.is_among_best = False
        """The last value is one of the `keep_best` best so far."""
        self._reference: float | None = None

    def add(self, step: int, value: float, direction: Direction, *, is_due: bool = True) -> bool:
        """Add the value of an evaluation; True if it is the best so far.

        Patience counts those that `is_due` at a step of every run: the one at the end of a process
        would count in a run that is resumed later, and not in one that was never stopped.
        """
        is_best = _is_better(
            value,
            self.best["value"] if self.best else None,
            direction,
        )
        if is_best:
            self.best = {"value": value, "step": step}

        worst = None
        if 0 < self._keep_best <= len(self._best_values):
            worst = self._best_values[-1]
        self.is_among_best = self._keep_best > 0 and _is_better(value, worst, direction)
        if self.is_among_best:
            ordered = sorted([*self._best_values, value], reverse=direction == "max")
            self._best_values = ordered[: self._keep_best]

        if is_due and _is_better(value, self._reference, direction, self._min_delta):
            self._reference = value
            self.waited = 0
        elif is_due:
            self.waited += 1
        return is_best

    @property
    def is_out_of_patience(self) -> bool:
        return self._patience is not None and self.waited >= self._patience

    def facts(self) -> dict[str, Any]:
        return {
            "best": self.best,
            "reference": self._reference,
            "waited": self.waited,
            "best_values": self._best_values,
        }

    def resume(self, facts: Facts) -> None:
        # All of them are finite, so they are numbers in JSON, too.
        self.best = facts["best"]
        self._reference = facts["reference"]
        self.waited = facts["waited"]
        self._best_values = facts["best_values"]


@dataclass(frozen=True)
class Target:
    metric: str
    sign: Sign
    """`=`: the direction of the goal."""
    value: float

    def directed(self, goal: Goal) -> Target | None:
        """The target with `=` replaced by the direction of `goal`; None for another metric."""
        if self.sign != "=":
            return self
        if self.metric != goal.metric:
            return None
        return Target(self.metric, _SIGNS[goal.direction], self.value)

    def is_reached(self, metrics: Numbers) -> bool:
        """Whether `metrics` are as good or better; NaN and infinities never are.

        Requires a direction.
        """
        value = metrics.get(self.metric, math.nan)
        if self.sign == "<=":
            return -math.inf < value <= self.value
        return math.inf > value >= self.value

    def text(self, sign: Sign | None = None) -> str:
        """As written: `val_loss <= 1.9`; with `sign` instead of its own."""
        return f"{self.metric} {sign or self.sign} {self.value:g}"


def parse_target(written: str) -> Target:
    """Parse `METRIC <= NUMBER`, `>=` or `=`. Raises ValueError."""
    try:
        metric, sign, value = _TARGET.findall(written)[0]
        return Target(metric, sign, float(value))
    except (IndexError, ValueError):
        raise ValueError(f"invalid target {written!r}; allowed: {TARGET_FORMS}") from None


def _is_better(value: float, than: float | None, direction: Direction, by: float = 0.0) -> bool:
    if not math.isfinite(value):
        return False
    if than is None:
        return True
    if direction == "min":
        return value < than - by
    return value > than + by
