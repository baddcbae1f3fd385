"""Health checks over logged steps and evaluations, which state the symptoms of faults."""

from __future__ import annotations

import math
from collections.abc import Collection
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from training.callbacks.base import Callback, Emit, EvalResult, Facts, StepMetrics
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


class Health(Callback):
    """Recognizes common faults, each once per run; for rank 0, after the writers of files."""

    def __init__(
        self, state: Emit, said: Collection[str] = (), *, learns: bool = True, has_patience: bool = False
    ) -> None:
        """`state` gets the name of a fault and its symptom; earlier processes have stated the `said`.

        The loss of a run that `learns` falls: no noise control, no loss that the task changes. A run
        that `has_patience` ends by itself when the validation metric stops improving.
        """
        self._state, self._said, self._has_patience = state, set(said), has_patience
        self._judges_loss, self._is_improved, self._is_first = learns, False, True
        self._losses: list[float] = []
        # Each with its validation loss, and the number of losses logged before it.
        self._evaluations: list[tuple[EvalResult, float, int]] = []
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
            if self._lines >= STARVED_LINES and self._data_s >= max(STARVED_S, STARVED * self._steps_s):
                self._find("starved", share=round(100 * self._data_s / self._steps_s))
        self._is_first = False
        if not self._judges_loss or not math.isfinite(metrics.loss):
            return
        losses, share = self._losses, metrics.step / self._plan.total_steps
        losses.append(metrics.loss)
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
            self._find("not_falling", first=real(before.mean()), last=real(now.mean()), steps=metrics.step)

    def evaluated(self, result: EvalResult) -> None:
        bad = {name: value for name, value in result.metrics.items() if not math.isfinite(value)}
        if bad:
            seen = {"names": list(bad), "split": result.split, "step": result.step}
            texts = ", ".join(f"{name} {value}" for name, value in bad.items())
            self._find("nonfinite_evaluation", metrics=texts, **seen)
        if result.split == "val" and self._judges_loss:
            self._is_improved |= bool(self._evaluations) and result.is_best
            loss = result.metrics.get("val_loss", math.nan)
            self._evaluations.append((result, loss, len(self._losses)))
            if not self._has_patience and len(self._evaluations) > RISES:
                self._check_overfitting()

    def event(self, kind: str, facts: Facts) -> None:
        if kind == "nonfinite":
            self._state(str(facts["fault"]), {"seen": facts["text"], "is_end": True})

    def _find(self, name: str, /, **seen: object) -> None:
        if name not in self._said:
            self._said.add(name)
            self._state(name, seen)

    def _check_overfitting(self) -> None:
        (best, lowest, begin), *rest = self._evaluations[-RISES - 1 :]
        values = [lowest, *(loss for _, loss, _ in rest)]
        rises = all(a < b for a, b in pairwise(values)) and values[-1] > WORSE * lowest > 0
        if not rises or any(result.is_best for result, _, _ in rest):
            return
        # The training losses of the interval before the best evaluation, and of the last one.
        start = self._evaluations[-RISES - 2][2] if len(self._evaluations) > RISES + 1 else 0
        then, now = self._losses[start:begin], self._losses[rest[-2][2] : rest[-1][2]]
        if then and now and np.mean(now) < np.mean(then):
            self._find("overfitting", step=best.step, best=real(lowest), now=real(values[-1]))
