"""How far a run has come, and how long the rest will take, evaluations and saves included."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from training.callbacks.base import StepMetrics
from training.train_plan import TrainPlan

_MEMORY_S = 30.0
"""Steps further back than this hardly count: throughput changes, say with the sequence length."""


@dataclass(frozen=True)
class Position:
    """Where a run stands."""

    step: int
    total_steps: int
    elapsed_s: float
    remaining_s: float | None
    """None: nothing measured yet."""
    remaining_is_least: bool
    """Evaluations or saves are to come that have never been measured."""
    last: StepMetrics | None


@dataclass
class _Pace:
    """How often something happened, and how long it took."""

    count: float = 0.0
    seconds: float = 0.0

    def add(self, seconds: float, keep: float = 1.0) -> None:
        self.count = keep * self.count + 1
        self.seconds = keep * self.seconds + seconds

    @property
    def mean_s(self) -> float:
        return self.seconds / self.count if self.count else 0.0


class Progress:
    """Learns from the moments it is told of how long a step, an evaluation and a save take.

    The time since the moment before belongs to the one that is told. Steps are weighted towards the
    recent ones; the first is left out, as it compiles and warms up.
    """

    def __init__(self, train_plan: TrainPlan, now: Callable[[], float] = time.monotonic) -> None:
        self._budget = train_plan
        self._now = now
        self._start = self._mark = now()
        self._step = train_plan.first_step
        self._steps, self._evaluations, self._saves = _Pace(), _Pace(), _Pace()
        # Nothing is due at the step that the run begins with.
        self._evaluated_at = self._saved_at = train_plan.first_step
        self._unplanned_saves = 0
        self.last: StepMetrics | None = None

    def stepped(self, step: int) -> None:
        """Update number `step` is done."""
        seconds = self._lap()
        if self._step > self._budget.first_step:
            self._steps.add(seconds, math.exp(-seconds / _MEMORY_S))
        self._step = step

    def evaluated(self) -> None:
        """A split has been evaluated; several splits after one step are one evaluation."""
        if self._evaluated_at == self._step:
            self._evaluations.seconds += self._lap()
        else:
            self._evaluations.add(self._lap())
        self._evaluated_at = self._step

    def saved(self, step: int) -> None:
        """The checkpoint of `step` is on disk; steps may have been taken while it was written."""
        self._saves.add(self._lap())
        self._saved_at = step
        every = self._budget.save_every
        if every is None or step % every:
            self._unplanned_saves += 1

    def position(self) -> Position:
        """Where the run stands now."""
        train_plan = self._budget
        evaluations = self._evaluations_left()
        saves = self._saves_left(evaluations)
        remaining = None
        if self._steps.count:
            steps = train_plan.end_step - self._step
            remaining = (
                steps * self._steps.mean_s
                + evaluations * self._evaluations.mean_s
                + saves * self._saves.mean_s
            )
        unknown = (evaluations > 0 and not self._evaluations.count) or (
            saves > 0 and not self._saves.count
        )
        elapsed = self._now() - self._start
        return Position(self._step, train_plan.end_step, elapsed, remaining, unknown, self.last)

    def _lap(self) -> float:
        before, self._mark = self._mark, self._now()
        return self._mark - before

    def _evaluations_left(self) -> int:
        done = self._step if self._evaluated_at == self._step else self._step - 1
        total, every = self._budget.end_step, self._budget.eval_every
        # One more at the end, unless the last planned one falls there.
        at_end = done < total and (every is None or total % every != 0)
        return _multiples(done, total, every) + at_end

    def _saves_left(self, evaluations_left: int) -> float:
        """Planned ones, one at the end, and the share of evaluations that found a best."""
        done = self._step if self._saved_at == self._step else self._step - 1
        planned = _multiples(done, self._budget.end_step, self._budget.save_every)
        share = self._unplanned_saves / self._evaluations.count if self._evaluations.count else 0.0
        at_end = 1 if done < self._budget.end_step else 0
        return max(planned + share * evaluations_left, at_end)


def _multiples(after: int, until: int, every: int | None) -> int:
    """How many multiples of `every` lie in (after, until]."""
    return 0 if every is None else until // every - after // every
