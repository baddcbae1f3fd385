"""Progress of a run: the current step, and the time to the end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from training.callbacks.base import StepMetrics
from training.train_plan import TrainPlan


@dataclass(frozen=True)
class Position:
    """The current step of a run and its times."""

    step: int
    total_steps: int
    elapsed_s: float
    remaining_s: float | None
    """None: no step was measured yet."""
    last: StepMetrics | None


class Progress:
    """Estimates the remaining time by the mean step so far, with evaluations and saves between steps.

    The first step is left out, because it compiles and warms up.
    """

    def __init__(self, train_plan: TrainPlan, now: Callable[[], float] = time.monotonic) -> None:
        self._end_step, self._now = train_plan.end_step, now
        self._start = self._mark = now()
        self.step = train_plan.first_step
        self._steps, self._steps_s = 0, 0.0  # Steps that were measured, and their seconds
        self._is_first = True
        self.last: StepMetrics | None = None

    def stepped(self, step: int, seconds: float | None = None) -> None:
        """Optimizer update number `step` is done; `seconds` since the call before, if known better."""
        before, self._mark = self._mark, self._now()
        if not self._is_first:
            self._steps += step - self.step
            self._steps_s += self._mark - before if seconds is None else seconds
        self.step, self._is_first = step, False

    def position(self) -> Position:
        left = self._end_step - self.step
        remaining = self._steps_s / self._steps * left if self._steps else None
        return Position(self.step, self._end_step, self._now() - self._start, remaining, self.last)
