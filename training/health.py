"""Health checks over logged steps and evaluations, which state the symptoms of faults."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import TYPE_CHECKING

from gearshift.training.callbacks.base import Callback, Emit, EvalResult, Facts, StepMetrics
from gearshift.training.logging.encoding import real

if TYPE_CHECKING:
    from gearshift.training.train_plan import TrainPlan


_LEAST_STEPS = 50
"""A shorter run only tries whether everything works: nothing is expected of its metrics."""


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
    ) -> None:
        """`state` gets the name of a fault and its symptom; earlier processes stated the `said`.

        The loss of a run that `learns` does not rise: no noise control, no loss that the task
        changes.
        """
        self._state = state
        self._said = set(said)
        self._learns = learns
        self._step: int | None = None
        self._lines = 0
        # Seconds of waiting for data, and of all, in the logged steps
        self._waited_s = 0.0
        self._steps_s = 0.0
        self._losses: list[float] = []

    def start(self, train_plan: TrainPlan) -> None:
        self._total_steps = train_plan.total_steps
        # A resumed run starts with a low loss, above which a peak may last.
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
