"""Progress of a run: the current step, and the time to the end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from training.callbacks.base import StepMetrics
from training.train_plan import TrainPlan

_MEMORY_S = 30.0
"""Time constant of the mean step time: throughput changes, for example with sequence length."""


@dataclass(frozen=True)
class Position:
    """The current step of a run and its times."""

    step: int
    total_steps: int
    elapsed_s: float
    remaining_s: float | None
    """None: no step was measured yet."""
    remaining_is_least: bool
    """An evaluation or save is still to come and was never measured."""
    last: StepMetrics | None


def next_save(train_plan: TrainPlan, step: int, saves_last: bool) -> int | None:
    """The step after `step` at which a checkpoint is planned; None: at none."""
    every, end = train_plan.save_every, train_plan.end_step
    planned = [(step // every + 1) * every] if every else []
    planned += [end] if saves_last else []
    return min((save for save in planned if step < save <= end), default=None)


class Progress:
    """Estimates the remaining time from the durations of steps, evaluations and saves so far.

    Each call ends an interval that began with the call before. Recent steps weigh more; the first
    step is left out, because it compiles and warms up.
    """

    def __init__(self, train_plan: TrainPlan, now: Callable[[], float] = time.monotonic) -> None:
        self._train_plan, self._now = train_plan, now
        self._start = self._mark = now()
        self._steps, self._evaluations, self._saves = (0.0, 0.0), (0.0, 0.0), (0.0, 0.0)
        """Counts and seconds, those of steps weighted."""
        # Nothing is due at the first step.
        self._step = self._evaluated_at = self._saved_at = train_plan.first_step
        self._unplanned_saves = 0
        self.extra_s = 0.0
        """Seconds of evaluations and saves after the current step that only a stop there causes."""
        self.last: StepMetrics | None = None

    def stepped(self, step: int, seconds: float | None = None) -> None:
        """Optimizer update number `step` is done.

        `seconds`: the mean of those since the call before, if they were measured elsewhere; so for
        the other methods.
        """
        each, count = self._interval(seconds), step - self._step
        if self._step > self._train_plan.first_step:
            keep = math.exp(-count * each / _MEMORY_S)
            self._steps = keep * self._steps[0] + count, keep * self._steps[1] + count * each
        self._step, self.extra_s = step, 0.0

    def evaluated(self, seconds: float | None = None) -> None:
        """A split has been evaluated; several splits after one step are one evaluation."""
        seconds, is_new = self._interval(seconds), self._evaluated_at != self._step
        self._note_extra(seconds)
        self._evaluations = self._evaluations[0] + is_new, self._evaluations[1] + seconds
        self._evaluated_at = self._step

    def saved(self, step: int, seconds: float | None = None) -> None:
        """The checkpoint of `step` is on disk; steps may have been taken while it was written."""
        seconds = self._interval(seconds)
        self._note_extra(seconds)
        self._saves = self._saves[0] + 1, self._saves[1] + seconds
        self._saved_at = step
        self._unplanned_saves += not self._train_plan.saves_at(step)

    def position(self) -> Position:
        plan, end = self._train_plan, self._train_plan.end_step
        done = self._step if self._evaluated_at == self._step else self._step - 1
        # One more at the end, unless a planned one is due there.
        evaluations = plan.evaluations(done, end) + (done < end and not plan.evaluates_at(end))
        done = self._step if self._saved_at == self._step else self._step - 1
        every = plan.save_every or end + 1
        saves: float = end // every - done // every
        if self._evaluations[0]:  # the share of them that finds a new best
            saves += self._unplanned_saves / self._evaluations[0] * evaluations
        saves = max(saves, 1 if done < end else 0)
        counts = [(end - self._step, self._steps), (evaluations, self._evaluations), (saves, self._saves)]
        spent = (number * seconds / (count or 1.0) for number, (count, seconds) in counts)
        remaining = sum(spent) if self._steps[0] else None
        unknown = any(number > 0 and not count for number, (count, _) in counts[1:])
        return Position(self._step, end, self._now() - self._start, remaining, unknown, self.last)

    def _note_extra(self, seconds: float) -> None:
        plan, step = self._train_plan, self._step
        if not (plan.evaluates_at(step) or plan.saves_at(step) or step == plan.end_step):
            self.extra_s += seconds

    def _interval(self, seconds: float | None) -> float:
        before, self._mark = self._mark, self._now()
        return self._mark - before if seconds is None else seconds
