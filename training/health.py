"""Health checks over logged steps and evaluations, which state the symptoms of faults."""

from __future__ import annotations

import math
import socket
import time
from array import array
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch

from training.callbacks.base import Callback, EvalResult, StepMetrics
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


def clock_skews(world: World, now: Callable[[], float] = time.time) -> dict[str, float]:
    """By host, the seconds by which its clock differs from that of rank 0, if SKEW_S or more. Collective.

    Each rank reads its clock when it leaves a barrier, which all leave within a second.
    """
    if world.size == 1:
        return {}
    world.barrier()
    clocks = torch.zeros(world.size, dtype=torch.float64)
    clocks[world.rank] = now()
    times = world.sum_later(clocks)().tolist()
    skews = {}
    for rank, at in enumerate(times):
        if abs(at - times[0]) >= SKEW_S:
            host = world.broadcast(socket.gethostname().encode(), rank).decode(errors="replace")
            skews[host] = at - times[0]
    return skews


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
    """Recognizes common faults, each once per run; for rank 0, after the writers of files."""

    def __init__(
        self,
        expected: Expected,
        state: State,
        said: Collection[str] = (),
        skews: Mapping[str, float] | None = None,
    ) -> None:
        """`said` are the faults that earlier processes of the run have stated."""
        self._expected, self._state, self._skews, self._said = expected, state, skews or {}, set(said)
        self._judges_loss, self._is_improved = expected.learns, False
        self._losses = array("d")
        self._evaluations: list[tuple[EvalResult, float, int]] = []
        """Each with its validation loss, and the number of losses logged before it."""
        self._first: StepMetrics | None = None
        self._lines, self._timed_steps, self._data_s, self._steps_s = 0, 0, 0.0, 0.0

    def start(self, train_plan: TrainPlan) -> None:
        self._plan, self._last_step = train_plan, train_plan.first_step
        # A resumed run starts with a low loss, which need not fall any more.
        self._judges_loss &= not train_plan.first_step and not train_plan.experience
        for host, seconds in self._skews.items():
            self._find("clock_skew", host=host, seconds=f"{seconds:.0f}")
        present = [(name, count) for name, count in self._expected.classes.items() if count]
        if len(present) == 1 and len(self._expected.classes) > 1:
            self._find("one_class", name=present[0][0], count=present[0][1])

    def logged(self, metrics: StepMetrics) -> None:
        steps, self._last_step = metrics.step - self._last_step, metrics.step
        if self._first is None:
            self._first = metrics  # its times are left out: it compiles, and waits for the first batch
        else:
            self._check_times(metrics, steps, self._first)
        if self._judges_loss and math.isfinite(metrics.loss):
            self._losses.append(metrics.loss)
            self._check_loss(metrics.step, metrics.step / self._plan.total_steps)

    def evaluated(self, result: EvalResult) -> None:
        bad = {name: value for name, value in result.metrics.items() if not math.isfinite(value)}
        if bad:
            texts = ", ".join(f"{name} {value}" for name, value in bad.items())
            where = {"split": result.split, "step": result.step}
            self._find("nonfinite_evaluation", metrics=texts, names=list(bad), **where)
        if result.split == "val" and self._judges_loss:
            self._is_improved |= bool(self._evaluations) and result.is_best
            loss = result.metrics.get("val_loss", math.nan)
            self._evaluations.append((result, loss, len(self._losses)))
            if not self._expected.has_patience and len(self._evaluations) > RISES:
                self._check_overfitting()

    def event(self, kind: str, facts: Mapping[str, object]) -> None:
        if kind == "nonfinite":
            self._state(str(facts["fault"]), {"seen": facts["text"], "is_end": True})

    def _find(self, name: str, /, **seen: object) -> None:
        if name not in self._said:
            self._said.add(name)
            self._state(name, seen)

    def _check_loss(self, step: int, share: float) -> None:
        losses = self._losses
        if len(losses) > HIGH_LINES and share >= HIGH_SHARE:
            least, first = min(losses[-HIGH_LINES:]), losses[0]
            if least > HIGH * first > 0:
                self._find("lr_too_high", least=real(least), lines=HIGH_LINES, first=real(first))
        enough = LINES if len(self._evaluations) >= EVALUATIONS else LINES_WITHOUT_EVALUATION
        is_told = self._is_improved or self._said & {"lr_too_high", "not_falling"}
        if is_told or len(losses) < enough or share < LEAST_SHARE:
            return
        third = len(losses) // 3
        first_third, last_third = np.array(losses[:third]), np.array(losses[-third:])
        before, now = float(first_third.mean()), float(last_third.mean())
        if 0 <= now - before <= RISEN * math.sqrt((first_third.var() + last_third.var()) / third):
            self._find("not_falling", first=real(before), last=real(now), steps=step)

    def _check_overfitting(self) -> None:
        newest = self._evaluations[-RISES - 1 :]
        losses = [loss for _, loss, _ in newest]
        rises = all(a < b for a, b in pairwise(losses)) and losses[-1] > WORSE * losses[0] > 0
        if not rises or any(result.is_best for result, _, _ in newest[1:]):
            return
        # The training losses of the interval before the best evaluation, and of the last one.
        start = self._evaluations[-RISES - 2][2] if len(self._evaluations) > RISES + 1 else 0
        then, now = self._losses[start : newest[0][2]], self._losses[newest[-2][2] : newest[-1][2]]
        if then and now and np.mean(now) < np.mean(then):
            self._find("overfitting", step=newest[0][0].step, best=real(losses[0]), now=real(losses[-1]))

    def _check_times(self, metrics: StepMetrics, steps: int, first: StepMetrics) -> None:
        self._lines, self._timed_steps = self._lines + 1, self._timed_steps + steps
        self._data_s += metrics.data_time_s * steps
        self._steps_s += metrics.step_time_s * steps
        if self._lines < STARVED_LINES:
            return
        if self._data_s >= STARVED_S and self._data_s > STARVED * self._steps_s:
            self._find("starved", share=round(100 * self._data_s / self._steps_s))
        first_s, later_s = first.step_time_s - first.data_time_s, self._steps_s / self._timed_steps
        rest_s = later_s * (self._plan.end_step - self._plan.first_step)
        least_s = max(COMPILING_S, COMPILING_SHARE * rest_s)
        if self._expected.is_compiled and first_s > COMPILING * later_s and first_s - later_s > least_s:
            self._find("compiling", first_s=f"{first_s:.3g}", later_s=f"{later_s:.3g}")
