"""Health checks over logged steps and evaluations, which state the symptoms of faults."""

from __future__ import annotations

import math
import socket
import time
from array import array
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
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


class _Evaluation(NamedTuple):
    step: int
    loss: float
    is_best: bool
    lines: int
    """Losses logged before it."""


class Health(Callback):
    """Recognizes common faults, each once per run; for rank 0, after the writers of files."""

    def __init__(
        self, expected: Expected, state: State, said: Collection[str] = (), skews: Sequence[ClockSkew] = ()
    ) -> None:
        """`said` are the faults that earlier processes of the run have stated."""
        self._expected, self._state, self._skews = expected, state, skews
        self._said = set(said)
        self._judges_loss = expected.learns
        self._losses = array("d")
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
            self._losses.append(metrics.loss)
            self._check_high(metrics)
            self._check_falling(metrics)

    def evaluated(self, result: EvalResult) -> Action:
        """Check that the metrics are finite, and the validation loss."""
        bad = {name: value for name, value in result.metrics.items() if not math.isfinite(value)}
        if bad:
            texts = ", ".join(f"{name} {value}" for name, value in bad.items())
            where = {"split": result.split, "step": result.step}
            self._find("nonfinite_evaluation", metrics=texts, names=list(bad), **where)
        if result.split == "val" and self._judges_loss:
            self._is_improved |= bool(self._evaluations) and result.is_best
            loss = result.metrics.get("val_loss", math.nan)
            lines = len(self._losses)
            self._evaluations.append(_Evaluation(result.step, loss, result.is_best, lines))
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

    def _check_high(self, metrics: StepMetrics) -> None:
        first = self._losses[0]
        if len(self._losses) <= HIGH_LINES or metrics.step < HIGH_SHARE * self._plan.total_steps:
            return
        least = min(self._losses[-HIGH_LINES:])
        if first > 0 and least > HIGH * first:
            self._find("lr_too_high", least=real(least), lines=HIGH_LINES, first=real(first))

    def _check_falling(self, metrics: StepMetrics) -> None:
        if self._is_improved or self._said & {"lr_too_high", "not_falling"}:
            return
        is_confirmed = len(self._evaluations) >= EVALUATIONS
        least = LINES if is_confirmed else LINES_WITHOUT_EVALUATION
        lines, third = len(self._losses), len(self._losses) // 3
        if lines < least or metrics.step < LEAST_SHARE * self._plan.total_steps:
            return
        first, last = np.array(self._losses[:third]), np.array(self._losses[-third:])
        before, now = float(first.mean()), float(last.mean())
        error = math.sqrt((first.var() + last.var()) / third)
        if before <= now <= before + RISEN * error:
            self._find("not_falling", first=real(before), last=real(now), steps=metrics.step)

    def _check_overfitting(self) -> None:
        if len(self._evaluations) <= RISES:
            return
        *earlier, start = self._evaluations[:-RISES]
        newest = [start, *self._evaluations[-RISES:]]
        if any(evaluation.is_best for evaluation in newest[1:]):
            return
        losses = [evaluation.loss for evaluation in newest]
        rises = all(a < b for a, b in pairwise(losses))
        if not rises or not losses[-1] > WORSE * losses[0] > 0:
            return
        # The training losses of the interval before the best evaluation, and of the last one.
        then = self._losses[earlier[-1].lines if earlier else 0 : start.lines]
        now = self._losses[newest[-2].lines : newest[-1].lines]
        if then and now and np.mean(now) < np.mean(then):
            numbers = {"best": real(losses[0]), "now": real(losses[-1])}
            self._find("overfitting", step=start.step, **numbers)

    def _check_times(self, metrics: StepMetrics, steps: int) -> None:
        """The first line is left out: it compiles, allocates and waits for the first batch."""
        self._lines += 1
        self._timed_steps += steps
        self._data_s += metrics.data_time_s * steps
        self._steps_s += metrics.step_time_s * steps
        is_enough = self._lines >= STARVED_LINES and self._data_s >= STARVED_S
        if is_enough and self._data_s > STARVED * self._steps_s:
            self._find("starved", share=round(100 * self._data_s / self._steps_s))
        if not self._expected.is_compiled or self._lines < STARVED_LINES:
            return
        assert self._first is not None
        first = self._first.step_time_s - self._first.data_time_s
        later = self._steps_s / self._timed_steps
        rest = later * (self._plan.end_step - self._plan.first_step)
        extra = first - later
        if extra > COMPILING_S and first > COMPILING * later and extra > COMPILING_SHARE * rest:
            self._find("compiling", first_s=f"{first:.3g}", later_s=f"{later:.3g}")
