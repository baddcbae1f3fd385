"""The rest of a schedule after its run was fitted to its budget of time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gearshift.training.optim.schedule import LrSchedule

if TYPE_CHECKING:
    from gearshift.training.settings import Schedule as Settings
    from gearshift.training.train_plan import TrainPlan


class FittedSchedule(LrSchedule):
    """A schedule whose rest is stretched or compressed: the factor at the newest fit stays."""

    def __init__(self, settings: Settings, train_plan: TrainPlan, before: LrSchedule):
        """`before`: the schedule up to the newest fit of the plan, which this one continues."""
        super().__init__(settings, train_plan)
        step = train_plan.fits[-1].step - self._start
        self._plateau = before._plateau
        # A longer warm-up would leave nothing of a run that turns out to be short.
        self._warmup = min(self._warmup, self._total // 2)
        self._decay_start = max(self._decay_start, self._warmup)
        self._fitted_at = step
        place = before.place_of(step)
        if self._name == "wsd" and before._warmup <= place <= before._decay_start:
            # At the peak only its end counts, which is that of the new length.
            place = min(max(step, self._warmup), self._decay_start)
        else:
            place = float(np.interp(place, _knots(before), _knots(self)))
        self._place = place

    def place_of(self, step: int) -> float:
        last = self._total - 1
        return float(np.interp(step, (self._fitted_at, last), (self._place, last)))


def _knots(schedule: LrSchedule) -> list[int]:
    """The places on the curve where its parts begin and end; each part stretches by itself."""
    warmup = schedule._warmup
    total = schedule._total
    if schedule._name == "one-cycle":
        return [0, warmup - 1, total - 1]
    decay = [schedule._decay_start] if schedule._name == "wsd" else []
    return [-1, warmup, *decay, total]
