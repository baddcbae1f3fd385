"""Health checks over logged steps and evaluations, which state the symptoms of faults."""

from __future__ import annotations

import math
from collections.abc import Collection
from itertools import pairwise
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gearshift.training.callbacks.base import Callback, Emit, EvalResult, Facts, StepMetrics
from gearshift.training.logging.encoding import real

if TYPE_CHECKING:
    from gearshift.training.train_plan import TrainPlan


_LEAST_STEPS = 50
"""A shorter run only tries whether everything works: nothing is expected of its metrics."""


class _Evaluation(NamedTuple):
    result: EvalResult
    val_loss: float
    train_loss: float
    """The mean since the evaluation before."""


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
        """`state` gets the name of a fault and its symptom; earlier processes stated the `said`.

        The loss of a run that `learns` falls: no noise control, no loss that the task changes. A
        run that `has_patience` ends by itself when the validation metric stops improving.
        """
        self._state = state
        self._said = set(said)
        self._learns = learns
        self._has_patience = has_patience
        self._step: int | None = None
        self._lines = 0
        # Seconds of waiting for data, and of all, in the logged steps
        self._waited_s = 0.0
        self._steps_s = 0.0
        self._losses: list[float] = []
        self._evaluated = 0  # Losses before the last evaluation
        self._evaluations: list[_Evaluation] = []

    def start(self, train_plan: TrainPlan) -> None:
        self._total_steps = train_plan.total_steps
        # A resumed run starts with a low loss, which need not fall any more.
        self._learns &= not train_plan.first_step and not train_plan.experience

    def logged(self, metrics: StepMetrics) -> None:
        before = self._step
        self._step = metrics.step
        if before is not None:  # the first one compiles, and waits for its first batch
            steps = metrics.step - before
            self._lines += 1
            self._waited_s += metrics.data_time_s * steps
            self._steps_s += metrics.step_time_s * steps
            # Less is no loss worth a change.
            if self._lines >= 5 and self._waited_s >= max(10.0, self._steps_s / 2):
                self._find("starved", share=round(100 * self._waited_s / self._steps_s))
        if self._learns and math.isfinite(metrics.loss):
            self._losses.append(metrics.loss)
            self._check_losses(metrics.step)

    def _check_losses(self, step: int) -> None:
        losses = self._losses
        share = step / self._total_steps
        newest = losses[-10:]
        lowest = min(newest)
        first = losses[0]
        if len(losses) > 10 and share >= 0.1 and lowest > 1.5 * first > 0:  # after a warm-up
            self._find(
                "lr_too_high",
                least=real(lowest),
                lines=len(newest),
                first=real(first),
            )

        # Evaluations that do not improve confirm a flat loss, usual at the start of a run.
        enough = 40 if len(self._evaluations) >= 3 else 100
        if len(losses) < enough or share < 0.3 or "lr_too_high" in self._said:
            return
        if any(evaluation.result.is_best for evaluation in self._evaluations[1:]):
            return
        begin, _, end = np.array_split(losses, 3)
        standard_error = math.sqrt((begin.var() + end.var()) / len(end))
        if 0 <= end.mean() - begin.mean() <= 2 * standard_error:
            self._find(
                "not_falling",
                first=real(begin.mean()),
                last=real(end.mean()),
                steps=step,
            )

    def evaluated(self, result: EvalResult) -> None:
        bad = {name: value for name, value in result.metrics.items() if not math.isfinite(value)}
        if bad:
            self._find(
                "nonfinite_evaluation",
                metrics=", ".join(f"{name} {value}" for name, value in bad.items()),
                names=list(bad),
                split=result.split,
                step=result.step,
            )
        if result.split != "val" or not self._learns:
            return
        train_loss = fmean(self._losses[self._evaluated :] or [math.nan])
        val_loss = result.metrics.get("val_loss", math.nan)
        self._evaluations.append(_Evaluation(result, val_loss, train_loss))
        self._evaluated = len(self._losses)

        latest = self._evaluations[-5:]
        if self._has_patience or len(latest) < 5:
            return
        if any(evaluation.result.is_best for evaluation in latest[1:]):
            return
        if not all(before.val_loss < after.val_loss for before, after in pairwise(latest)):
            return
        best = latest[0]
        worst = latest[-1]
        if worst.val_loss > 1.05 * best.val_loss > 0 and worst.train_loss < best.train_loss:
            self._find(
                "overfitting",
                step=best.result.step,
                best=real(best.val_loss),
                now=real(worst.val_loss),
            )

    def event(self, kind: str, facts: Facts) -> None:
        if kind == "fitted":
            self._total_steps = facts["total_steps"]
        if kind == "nonfinite":
            self._state(str(facts["fault"]), {"seen": facts["text"], "is_end": True})
        is_whole = self._total_steps >= _LEAST_STEPS
        if kind == "baselines" and facts["is_below"] and is_whole:
            best = facts["best"]
            nearest = best["baseline"]
            self._find(
                "below_baseline",
                metric=best["metric"],
                best=real(best["value"]),
                name=nearest["name"],
                baseline=real(float(nearest["value"])),
            )

    def _find(self, name: str, /, **facts: object) -> None:
        if name not in self._said:
            self._said.add(name)
            self._state(name, facts)
