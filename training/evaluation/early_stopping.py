"""Early stopping: the best value so far, patience, and the target value of stop.at."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from models.base import Goal
    from training.settings import Stop


Direction = Literal["min", "max"]


@dataclass(frozen=True)
class Best:
    """The best value of a metric, and the step it was found at."""

    value: float
    step: int


class EarlyStopping:
    """Judges one value after another.

    The best is the best by however little; patience counts the evaluations since the value last
    improved by more than `min_delta`. The first value is an improvement, one that is NaN never.
    """

    def __init__(self, stop: Stop, kept: int = 1):
        """`kept`: how many of the best values are remembered."""
        self._patience = stop.patience
        self._kept = kept
        self._top: list[float] = []
        self._min_delta = stop.min_delta if self._patience is not None else 0.0
        self.best: Best | None = None
        self.waited = 0
        """Evaluations since the last improvement."""
        self.is_among_best = False
        """The value that was judged last is one of the `kept` best so far."""
        self._reference: float | None = None

    def judge(self, step: int, value: float, direction: Direction) -> bool:
        """Take note of an evaluation; true where it is the best so far."""
        is_best = _is_better(value, self.best.value if self.best else None, direction)
        if is_best:
            self.best = Best(value, step)
        self.is_among_best = self._enter(value, direction)
        if _is_better(value, self._reference, direction, self._min_delta):
            self._reference, self.waited = value, 0
        else:
            self.waited += 1
        return is_best

    def _enter(self, value: float, direction: Direction) -> bool:
        """Take `value` among the best ones, where it belongs there."""
        is_full = len(self._top) >= self._kept
        if not self._kept or not _is_better(value, self._top[-1] if is_full else None, direction):
            return False
        self._top = sorted([*self._top, value], reverse=direction == "max")[: self._kept]
        return True

    @property
    def is_out_of_patience(self) -> bool:
        """The settings say to stop now."""
        return self._patience is not None and self.waited >= self._patience

    def facts(self) -> dict[str, Any]:
        """What `resume` needs, as plain numbers."""
        best = asdict(self.best) if self.best else None
        return {
            "best": best,
            "reference": self._reference,
            "waited": self.waited,
            "top": self._top,
        }

    def resume(self, facts: Mapping[str, Any]) -> None:
        """Go on from the facts of another."""
        best = facts["best"]
        self.best = Best(float(best["value"]), best["step"]) if best else None
        self._reference, self.waited = _number(facts["reference"]), facts["waited"]
        self._top = [float(value) for value in facts.get("top", ())]


def _number(value: float | str | None) -> float | None:
    """A number as plain JSON has it, infinite ones as words."""
    return None if value is None else float(value)


def _is_better(value: float, than: float | None, direction: Direction, by: float = 0.0) -> bool:
    if math.isnan(value):
        return False
    if than is None:
        return True
    return value < than - by if direction == "min" else value > than + by


Sign = Literal["<=", ">=", "="]

TARGET_PATTERN = r"^ *([A-Za-z_][A-Za-z0-9_./-]*) *(<=|>=|=) *([-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?) *$"
TARGET_FORMS = "a metric and a number, such as 'val_loss <= 1.9'; with = for the family's own goal"
_WRITTEN = re.compile(TARGET_PATTERN)
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


def parse_target(written: str) -> Target:
    """What `METRIC <= NUMBER`, `>=` or `=` says. Raises ValueError where it is none of them."""
    found = _WRITTEN.match(written)
    try:
        if found is None:
            raise ValueError
        return Target(found[1], _sign(found[2]), float(found[3]))
    except ValueError:
        raise ValueError(f"{written!r} is no aim; legal: {TARGET_FORMS}") from None


def alternatives(target: Target) -> Sequence[str]:
    """The same with either way said."""
    return [target.text(sign) for sign in _BETTER.values()]


def _sign(text: str) -> Sign:
    return next(sign for sign in ("<=", ">=", "=") if sign == text)
