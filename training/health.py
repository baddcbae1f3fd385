"""Health checks over logged steps and evaluations, which state the symptoms of faults."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from training.callbacks.base import Callback, EvalResult, StepMetrics
from training.logging.quantities import real

if TYPE_CHECKING:
    from training.train_plan import TrainPlan

# A healthy run must never be called ill: each threshold asks for more evidence than chance gives.
LINES, LINES_WITHOUT_EVALUATION, EVALUATIONS = 40, 100, 3
"""Logged steps before a flat loss is judged, with so many evaluations that confirm it and without."""
LEAST_SHARE, HIGH_SHARE = 0.3, 0.1
"""Of the steps of the run, before which a loss may be flat, or high: warm-up, a plateau at the start."""
RISEN = 2.0
"""Standard errors by which a flat loss may be higher at the end: more is a rise; any lower is a fall."""
HIGH_LINES, HIGH = 10, 1.5
"""A learning rate is too high if the last HIGH_LINES losses are this many times the first one."""
RISES, WORSE = 4, 1.05
"""Evaluations in a row that are worse than the one before, and the ratio that matters to a user."""
STARVED, STARVED_LINES, STARVED_S = 0.5, 5, 10.0
"""Share of a step spent waiting for data; logged steps and seconds of it: less is no loss worth a change."""

State = Callable[[str, Mapping[str, object]], None]
"""Gets the name of a fault, and the values of its symptom."""


class Health(Callback):
    """Recognizes common faults, each once per run; for rank 0, after the writers of files."""

    def __init__(
        self, state: State, said: Collection[str] = (), *, learns: bool = True, has_patience: bool = False
    ) -> None:
        """`said` are the faults that earlier processes of the run have stated.

        The loss of a run that `learns` falls: no noise control, no loss that the task changes. A run
        that `has_patience` ends by itself when the validation metric stops improving.
        """
        self._state, self._said, self._has_patience = state, set(said), has_patience
        self._judges_loss, self._is_improved, self._is_first = learns, False, True
        self._losses: list[float] = []
        self._evaluations: list[tuple[EvalResult, float, int]] = []
        """Each with its validation loss, and the number of losses logged before it."""
        self._lines, self._data_s, self._steps_s = 0, 0.0, 0.0

    def start(self, train_plan: TrainPlan) -> None:
        self._plan, self._last_step = train_plan, train_plan.first_step
        # A resumed run starts with a low loss, which need not fall any more.
        self._judges_loss &= not train_plan.first_step and not train_plan.experience

    def logged(self, metrics: StepMetrics) -> None:
        steps, self._last_step = metrics.step - self._last_step, metrics.step
        if not self._is_first:  # that one compiles, and waits for the first batch
            self._lines += 1
            self._data_s += metrics.data_time_s * steps
            self._steps_s += metrics.step_time_s * steps
            is_long = self._lines >= STARVED_LINES and self._data_s >= STARVED_S
            if is_long and self._data_s > STARVED * self._steps_s:
                self._find("starved", share=round(100 * self._data_s / self._steps_s))
        self._is_first = False
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
            if not self._has_patience and len(self._evaluations) > RISES:
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
        before, now = np.array(losses[:third]), np.array(losses[-third:])
        rise = now.mean() - before.mean()
        if 0 <= rise <= RISEN * math.sqrt((before.var() + now.var()) / third):
            means = real(float(before.mean())), real(float(now.mean()))
            self._find("not_falling", first=means[0], last=means[1], steps=step)

    def _check_overfitting(self) -> None:
        newest = self._evaluations[-RISES - 1 :]
        values = [loss for _, loss, _ in newest]
        rises = all(a < b for a, b in pairwise(values)) and values[-1] > WORSE * values[0] > 0
        if not rises or any(result.is_best for result, _, _ in newest[1:]):
            return
        # The training losses of the interval before the best evaluation, and of the last one.
        start = self._evaluations[-RISES - 2][2] if len(self._evaluations) > RISES + 1 else 0
        then, now = self._losses[start : newest[0][2]], self._losses[newest[-2][2] : newest[-1][2]]
        if then and now and np.mean(now) < np.mean(then):
            self._find("overfitting", step=newest[0][0].step, best=real(values[0]), now=real(values[-1]))
