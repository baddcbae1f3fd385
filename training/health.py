"""Health checks over logged steps and evaluations, which state the symptoms of faults."""

from __future__ import annotations

import math
import socket
import time
from array import array
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import torch

from training.callbacks.base import Action, Callback, EvalResult, StepMetrics
from training.logging.quantities import real

if TYPE_CHECKING:
    from engines.base import World
    from training.train_plan import TrainPlan

# A healthy run must never be called ill: each threshold asks for more evidence than chance gives.
LINES = 40
"""Logged steps before the loss is judged: its mean over a third of them is then known to a quarter
of its spread."""
LINES_WITHOUT_EVALUATION = 100
"""The same, if no evaluations confirm that the model does not improve."""
EVALUATIONS = 3
"""Evaluations that confirm it."""
LEAST_SHARE = 0.3
"""Of the steps of the run, before which a loss may be flat: warm-up, a plateau at the start."""
RISEN = 2.0
"""Standard errors by which a flat loss may be higher at the end: more is no chance, but a rise.
One that is lower by anything counts as falling, which a loss without progress is half of the time.
"""
HIGH_LINES = 10
HIGH = 1.5
"""A learning rate is too high if the last HIGH_LINES losses are this many times the first one:
training that works stays below the loss of a model that knows nothing."""
HIGH_SHARE = 0.1
"""Of the steps of the run, before which a loss may be high: some warm-ups start with a peak."""
RISES = 4
"""Evaluations in a row that are worse than the one before: by chance, 1 of 120 sequences."""
WORSE = 1.05
"""Ratio of the validation loss to its minimum that matters to a user."""
STARVED = 0.5
"""Share of a step: more than half of it is spent waiting."""
STARVED_LINES, STARVED_S = 5, 10.0
"""Logged steps, and seconds spent waiting in them: less is no loss worth a change."""
COMPILING = 10.0
"""Ratio of the first step to a later one: it also allocates and chooses kernels, in less time."""
COMPILING_S, COMPILING_SHARE = 10.0, 0.25
"""Seconds, and share of the rest of the run, that compiling takes: else it pays, or is short."""
SKEW_S = 5.0
"""Clocks that are synchronized differ by milliseconds; ranks leave a barrier within a second."""

State = Callable[[str, Mapping[str, object]], None]
"""Gets the name of a fault, and the values of its symptom."""


@dataclass(frozen=True)
class ClockSkew:
    """A clock that differs by SKEW_S or more from that of rank 0."""

    host: str
    seconds: float


def clock_skews(world: World, now: Callable[[], float] = time.time) -> list[ClockSkew]:
    """The clocks that differ by SKEW_S or more from that of rank 0, one per host. Collective.

    Each rank reads its clock when it leaves a barrier, which all leave within a second.
    """
    if world.size == 1:
        return []
    world.barrier()
    clocks = torch.zeros(world.size, dtype=torch.float64)
    clocks[world.rank] = now()
    times = world.sum_later(clocks)().tolist()
    skews = {}
    for rank, at in enumerate(times):
        if abs(at - times[0]) >= SKEW_S:
            host = world.broadcast(socket.gethostname().encode(), rank).decode(errors="replace")
            skews[host] = ClockSkew(host, at - times[0])
    return list(skews.values())


@dataclass(frozen=True)
class Expected:
    """What is known of a healthy run before it starts."""

    learns: bool = True
    """Its loss falls: no noise control, and no loss that the task changes during the run."""
    is_compiled: bool = False
    has_patience: bool = False
    """It ends by itself when the validation metric stops improving."""
    classes: Mapping[str, int] = field(default_factory=dict)
    """The number of training labels of each class; empty: unknown."""


class Health(Callback):
    """Recognizes common faults, each once per run; for rank 0, after the writers of files.

    A logged step costs microseconds: every check reads sums that are kept from line to line.
    """

    def __init__(
        self,
        expected: Expected,
        state: State,
        said: Collection[str] = (),
        skews: Sequence[ClockSkew] = (),
    ) -> None:
        """`said` are the faults that earlier processes of the run have stated."""
        self._expected, self._state, self._skews = expected, state, skews
        self._said = set(said)
        self._judges_loss = expected.learns
        self._losses = _Sums()
        self._first: StepMetrics | None = None
        self._lines, self._timed_steps, self._data_s, self._steps_s = 0, 0, 0.0, 0.0
        self._evaluations: list[_Evaluation] = []
        self._is_improved = False

    def start(self, train_plan: TrainPlan) -> None:
        """Check the clocks and the labels."""
        self._plan = train_plan
        self._last_step = train_plan.first_step
        is_first = not train_plan.first_step and not train_plan.experience
        # A resumed run starts with a low loss, which need not fall any more.
        self._judges_loss = self._judges_loss and is_first
        for skew in self._skews:
            self._find("clock_skew", host=skew.host, seconds=f"{skew.seconds:.0f}")
        present = {name: count for name, count in self._expected.classes.items() if count}
        if len(present) == 1 and len(self._expected.classes) > 1:
            name, count = next(iter(present.items()))
            self._find("one_class", name=name, count=count)

    def logged(self, metrics: StepMetrics) -> None:
        """Check the loss and the times."""
        steps, self._last_step = metrics.step - self._last_step, metrics.step
        if self._first is None:
            self._first = metrics
        else:
            self._check_times(metrics, steps)
        if self._judges_loss and math.isfinite(metrics.loss):
            self._losses.add(metrics.loss)
            self._check_high(metrics)
            self._check_falling(metrics)

    def evaluated(self, result: EvalResult) -> Action:
        """Check that the metrics are finite, and the validation loss."""
        self._check_finite(result)
        loss = result.metrics.get("val_loss")
        if result.split == "val" and self._judges_loss:
            if self._evaluations and result.is_best:
                self._is_improved = True
            value = math.nan if loss is None else loss
            evaluation = _Evaluation(result.step, value, result.is_best, len(self._losses))
            self._evaluations.append(evaluation)
            if not self._expected.has_patience:
                self._check_overfitting()
        return Action.NOTHING

    def event(self, kind: str, facts: Mapping[str, object]) -> None:
        """State a loss that is not finite: it ends the run."""
        if kind == "nonfinite":
            self._state(str(facts["fault"]), {"seen": facts["text"], "is_end": True})

    def _find(self, name: str, /, **seen: object) -> None:
        if name not in self._said:
            self._said.add(name)
            self._state(name, seen)

    def _check_finite(self, result: EvalResult) -> None:
        nonfinite = {
            name: value for name, value in result.metrics.items() if not math.isfinite(value)
        }
        if nonfinite:
            metrics = ", ".join(f"{name} {value}" for name, value in nonfinite.items())
            where = {"split": result.split, "step": result.step}
            self._find("nonfinite_evaluation", metrics=metrics, names=list(nonfinite), **where)

    def _check_high(self, metrics: StepMetrics) -> None:
        lines, first = len(self._losses), self._losses.first
        if lines <= HIGH_LINES or metrics.step < HIGH_SHARE * self._plan.total_steps:
            return
        least = min(self._losses.newest(HIGH_LINES))
        if first > 0 and least > HIGH * first:
            self._find("lr_too_high", least=real(least), lines=HIGH_LINES, first=real(first))

    def _check_falling(self, metrics: StepMetrics) -> None:
        lines, third = len(self._losses), len(self._losses) // 3
        is_confirmed = len(self._evaluations) >= EVALUATIONS
        least = LINES if is_confirmed else LINES_WITHOUT_EVALUATION
        if lines < least or metrics.step < LEAST_SHARE * self._plan.total_steps:
            return
        if self._is_improved or "lr_too_high" in self._said:
            return
        before, now = self._losses.mean(0, third), self._losses.mean(lines - third, lines)
        error = self._losses.error(third)
        if before <= now <= before + RISEN * error:
            numbers = {"first": real(before), "last": real(now), "steps": metrics.step}
            self._find("not_falling", **numbers)

    def _check_overfitting(self) -> None:
        newest = self._evaluations[-RISES - 1 :]
        losses = [evaluation.loss for evaluation in newest]
        if len(newest) <= RISES or any(evaluation.is_best for evaluation in newest[1:]):
            return
        rises = all(a < b for a, b in pairwise(losses))
        if not rises or not losses[-1] > WORSE * losses[0] > 0:
            return
        marks = [evaluation.lines for evaluation in self._evaluations]
        before = marks[-RISES - 2] if len(marks) > RISES + 1 else 0
        trained = [(before, marks[-RISES - 1]), (marks[-2], marks[-1])]
        if all(a < b for a, b in trained):
            then, now = (self._losses.mean(*lines) for lines in trained)
            if now < then:
                numbers = {"best": real(losses[0]), "now": real(losses[-1])}
                self._find("overfitting", step=newest[0].step, **numbers)

    def _check_times(self, metrics: StepMetrics, steps: int) -> None:
        """The first line is left out: it compiles, allocates and waits for the first batch."""
        self._lines += 1
        self._timed_steps += steps
        self._data_s += metrics.data_time_s * steps
        self._steps_s += metrics.step_time_s * steps
        is_enough = self._lines >= STARVED_LINES and self._data_s >= STARVED_S
        if is_enough and self._data_s > STARVED * self._steps_s:
            self._find("starved", share=round(100 * self._data_s / self._steps_s))
        if self._expected.is_compiled and self._lines >= STARVED_LINES:
            self._check_compiling()

    def _check_compiling(self) -> None:
        assert self._first is not None
        first = self._first.step_time_s - self._first.data_time_s
        later = self._steps_s / self._timed_steps
        rest = later * (self._plan.end_step - self._plan.first_step)
        extra = first - later
        if extra > COMPILING_S and first > COMPILING * later and extra > COMPILING_SHARE * rest:
            self._find("compiling", first_s=f"{first:.3g}", later_s=f"{later:.3g}")


@dataclass(frozen=True)
class _Evaluation:
    step: int
    loss: float
    is_best: bool
    lines: int
    """Losses logged before it."""


class _Sums:
    """Losses with their running sums, for the mean over any lines in constant time."""

    def __init__(self) -> None:
        self._losses, self._sums, self._squares = array("d"), array("d", [0.0]), array("d", [0.0])

    def __len__(self) -> int:
        return len(self._losses)

    @property
    def first(self) -> float:
        return self._losses[0]

    def add(self, loss: float) -> None:
        self._losses.append(loss)
        centered = loss - self._losses[0]  # squares of large numbers would lose the differences
        self._sums.append(self._sums[-1] + centered)
        self._squares.append(self._squares[-1] + centered * centered)

    def newest(self, count: int) -> Sequence[float]:
        return self._losses[-count:]

    def mean(self, begin: int, end: int) -> float:
        return self._losses[0] + (self._sums[end] - self._sums[begin]) / (end - begin)

    def error(self, third: int) -> float:
        """The standard error of the difference of the means of the first and the last third."""
        total = len(self._losses)
        variances = (self._variance(0, third), self._variance(total - third, total))
        return math.sqrt(sum(variances) / third)

    def _variance(self, begin: int, end: int) -> float:
        count = end - begin
        mean = (self._sums[end] - self._sums[begin]) / count
        return max((self._squares[end] - self._squares[begin]) / count - mean * mean, 0.0)
