"""Health checks over logged steps and evaluations, which state the symptoms of faults."""

from __future__ import annotations

import math
from collections.abc import Collection
from itertools import pairwise
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from gearshift.training.callbacks.base import Callback, Emit, EvalResult, Facts, StepMetrics
from gearshift.training.logging.quantities import real

if TYPE_CHECKING:
    from gearshift.training.train_plan import TrainPlan


class Health(Callback):
    """Recognizes common faults, each once per run; for rank 0, after the writers of files.

    A healthy run must never be called ill: each threshold asks for more evidence than chance gives.
    """

    def __init__(
        self,
        state: Emit,
        said: Collection[str] = (),
        *,
        learns: bool = True,
        has_patience: bool = False,
    ) -> None:
        """`state` gets the name of a fault and its symptom; earlier processes have stated the `said`.

        The loss of a run that `learns` falls: no noise control, no loss that the task changes. A run
        that `has_patience` ends by itself when the validation metric stops improving.
        """
        self._state = state
        self._said = set(said)
        self._learns = learns
        self._has_patience = has_patience
        self._step: int | None = None
        self._times = np.zeros(3)  # Logged steps, seconds of waiting for data, seconds of all
        self._losses: list[float] = []
        self._evaluated = 0  # Losses before the last evaluation
        # Each with its validation loss, and the mean training loss since the one before.
        self._evaluations: list[tuple[EvalResult, float, float]] = []

    def start(self, train_plan: TrainPlan) -> None:
        self._total_steps = train_plan.total_steps
        # A resumed run starts with a low loss, which need not fall any more.
        self._learns &= not train_plan.first_step and not train_plan.experience

    def logged(self, metrics: StepMetrics) -> None:
        before = self._step
        self._step = metrics.step
        if before is not None:  # the first one compiles, and waits for its first batch
            steps = metrics.step - before
            self._times += 1, metrics.data_time_s * steps, metrics.step_time_s * steps
            lines, waited_s, steps_s = self._times
            if lines >= 5 and waited_s >= max(10.0, steps_s / 2):  # less is no loss worth a change
                self._find("starved", share=round(100 * waited_s / steps_s))
        if not self._learns or not math.isfinite(metrics.loss):
            return
        losses = self._losses
        share = metrics.step / self._total_steps
        losses.append(metrics.loss)
        newest = losses[-10:]
        first = losses[0]
        if len(losses) > 10 and share >= 0.1 and min(newest) > 1.5 * first > 0:  # after a warm-up
            self._find("lr_too_high", least=real(min(newest)), lines=len(newest), first=real(first))
        # Evaluations that do not improve confirm a flat loss, which is usual at the start of a run.
        enough = 40 if len(self._evaluations) >= 3 else 100
        is_improved = any(result.is_best for result, *_ in self._evaluations[1:])
        if len(losses) < enough or share < 0.3 or is_improved or "lr_too_high" in self._said:
            return
        begin, _, end = np.array_split(losses, 3)
        rise = end.mean() - begin.mean()
        if 0 <= rise <= 2 * math.sqrt((begin.var() + end.var()) / len(end)):  # standard errors
            self._find(
                "not_falling", first=real(begin.mean()), last=real(end.mean()), steps=metrics.step
            )

    def evaluated(self, result: EvalResult) -> None:
        bad = {name: value for name, value in result.metrics.items() if not math.isfinite(value)}
        if bad:
            texts = ", ".join(map("{} {}".format, bad, bad.values()))
            at = result.step
            self._find(
                "nonfinite_evaluation", metrics=texts, names=list(bad), split=result.split, step=at
            )
        if result.split != "val" or not self._learns:
            return
        loss = fmean(self._losses[self._evaluated :] or [math.nan])
        self._evaluations.append((result, result.metrics.get("val_loss", math.nan), loss))
        self._evaluated = len(self._losses)
        latest = self._evaluations[-5:]
        if self._has_patience or len(latest) < 5:
            return
        (lowest, best, then), (_, worst, now) = latest[0], latest[-1]
        rises = all(a < b for (_, a, _), (_, b, _) in pairwise(latest)) and worst > 1.05 * best > 0
        if rises and now < then and not any(each.is_best for each, *_ in latest[1:]):
            self._find("overfitting", step=lowest.step, best=real(best), now=real(worst))

    def event(self, kind: str, facts: Facts) -> None:
        if kind == "nonfinite":
            self._state(str(facts["fault"]), {"seen": facts["text"], "is_end": True})

    def _find(self, name: str, /, **seen: object) -> None:
        if name not in self._said:
            self._said.add(name)
            self._state(name, seen)
