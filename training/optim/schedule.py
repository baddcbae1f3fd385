"""Learning-rate schedules: a warm-up, then a curve from the peak downwards."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from training import duration

if TYPE_CHECKING:
    from training.settings import Schedule as Settings
    from training.train_plan import TrainPlan

Curve = Callable[[int], float]

ONE_CYCLE_RISE = "30%"
ONE_CYCLE_START = 1 / 25
"""Share of the peak at the first step. Source: as torch.optim.lr_scheduler.OneCycleLR."""


class LrSchedule:
    """The factor of the peak learning rate for each step of a run."""

    def __init__(self, settings: Settings, train_plan: TrainPlan):
        """Raises ValueError for a bad duration in `settings`."""
        self.warnings: list[str] = []
        """Changes that were made to the settings."""
        self._start = train_plan.schedule_start
        # A schedule that was reset covers the remaining steps.
        steps = max(1, train_plan.total_steps - self._start)
        self._curve = self._build(settings, replace(train_plan, total_steps=steps))

    def factor(self, step: int) -> float:
        """The factor of the update after `step` updates; in [0, 1]."""
        return self._curve(step - self._start)

    def _build(self, settings: Settings, train_plan: TrainPlan) -> Curve:
        total = train_plan.total_steps
        warmup = self._warmup(settings, train_plan)
        if settings.name == "constant":
            return warmed(lambda step: 1.0, warmup)
        final = settings.final
        if settings.name == "linear":
            return warmed(linear(total - warmup, final), warmup)
        if settings.name == "cosine":
            return warmed(cosine(total - warmup, final), warmup)
        if settings.name == "one-cycle":
            return one_cycle(total, warmup, final)
        starts = cycle_starts(total - warmup, settings.cycle, settings.t_mult, train_plan)
        return warmed(cosine_restarts(starts, final), warmup)

    def _warmup(self, settings: Settings, train_plan: TrainPlan) -> int:
        steps = _steps(settings.warmup, train_plan)
        if settings.name == "one-cycle" and not steps:
            self.warnings.append(
                f"one-cycle requires a warm-up: schedule.warmup is 0 and set to {ONE_CYCLE_RISE}"
            )
            steps = _steps(ONE_CYCLE_RISE, train_plan)
        cap = settings.warmup_cap
        if cap is not None and steps > (limit := _steps(cap, train_plan)):
            self.warnings.append(
                f"schedule.warmup: {steps} steps cut to {limit} by schedule.warmup_cap={cap}"
            )
            steps = limit
        return steps


def warmed(curve: Curve, warmup_steps: int) -> Curve:
    """`curve` after `warmup_steps` of linear warm-up, from above 0 to below 1."""

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        return curve(step - warmup_steps)

    return factor


def linear(steps: int, final: float) -> Curve:
    """Linear from 1 to `final` after `steps`."""
    return lambda step: final + (1 - final) * (1 - step / steps)


def cosine(steps: int, final: float) -> Curve:
    """Half a cosine from 1 to `final` after `steps`.

    Source: Loshchilov and Hutter, SGDR, 2017, equation 5, one cycle.
    """
    return lambda step: _cosine(1.0, final, step / steps)


def cosine_restarts(starts: list[int], final: float) -> Curve:
    """Half a cosine from 1 to `final` in each cycle between two of `starts`.

    Source: Loshchilov and Hutter, SGDR, 2017, equation 5.
    """

    def factor(step: int) -> float:
        cycle = bisect_right(starts, step) - 1
        begin, end = starts[cycle], starts[cycle + 1]
        return _cosine(1.0, final, (step - begin) / (end - begin))

    return factor


def one_cycle(steps: int, rise: int, final: float) -> Curve:
    """Half a cosine up in the first `rise` steps, another down to `final` at the last step.

    Source: Smith and Topin, Super-Convergence, 2018; curves as torch's OneCycleLR.
    """
    top = rise - 1

    def factor(step: int) -> float:
        if step < top:
            return _cosine(ONE_CYCLE_START, 1.0, step / top)
        return _cosine(1.0, final, (step - top) / max(steps - rise, 1))

    return factor


def cycle_starts(steps: int, cycle: int | str, t_mult: float, train_plan: TrainPlan) -> list[int]:
    """First steps of the cycles that cover `steps`, and the step after the last cycle.

    Cycle k has length `cycle` × `t_mult`**k in whole steps, or in whole epochs if `cycle` is given
    in epochs.
    """
    epochs = duration.epochs(cycle)
    whole_epochs = epochs is not None and epochs == int(epochs)
    unit = train_plan.steps_per_epoch if whole_epochs else 1
    first = epochs if epochs is not None and whole_epochs else _steps(cycle, train_plan)
    starts = [0]
    while starts[-1] < steps:
        length = round(first * t_mult ** (len(starts) - 1)) * unit
        starts.append(starts[-1] + max(1, length))
    return starts


def _cosine(begin: float, end: float, share: float) -> float:
    return end + (begin - end) * (1 + math.cos(math.pi * share)) / 2


def _steps(length: int | str, train_plan: TrainPlan) -> int:
    return duration.steps(length, train_plan.steps_per_epoch, train_plan.total_steps)
