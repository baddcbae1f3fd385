"""Learning-rate schedules: a warm-up, then a curve from the peak downwards, or drops from it."""

from __future__ import annotations

import math
from bisect import bisect_right

from gearshift.training.callbacks.base import Facts, Json
from gearshift.training.settings import Schedule as Settings
from gearshift.training.settings import duration_epochs, duration_steps
from gearshift.training.train_plan import TrainPlan, decay_start

ONE_CYCLE_RISE = "30%"
ONE_CYCLE_START = 1 / 25
"""Share of the peak at the first step. Source: as torch.optim.lr_scheduler.OneCycleLR."""


class LrSchedule:
    """The factor of the peak learning rate for each step of a run."""

    def __init__(self, settings: Settings, train_plan: TrainPlan):
        """Raises ValueError for a bad duration in `settings`."""
        self.warnings: list[str] = []
        """Changes that were made to the settings."""
        self._name = settings.name
        self._final = settings.final
        self._drop = settings.drop
        self._patience = settings.patience
        self._start = train_plan.schedule_start
        # A schedule that was reset covers the remaining steps.
        self._total = max(1, train_plan.total_steps - self._start)
        per_epoch = train_plan.steps_per_epoch

        warmup = settings.warmup
        if self._name == "one-cycle" and not duration_steps(warmup, per_epoch, self._total):
            self.warnings.append(
                f"one-cycle requires a warm-up: schedule.warmup is 0 and set to {ONE_CYCLE_RISE}"
            )
            warmup = ONE_CYCLE_RISE
        cap = settings.warmup_cap
        length = duration_steps(warmup, per_epoch, self._total)
        self._warmup = warmup_steps(warmup, cap, per_epoch, self._total)
        if self._warmup < length:
            self.warnings.append(
                f"schedule.warmup: {length} steps cut to {self._warmup} by"
                f" schedule.warmup_cap={cap}"
            )

        steps = self._total - self._warmup
        self._cycles = [0, steps]
        if self._name == "cosine-restarts":
            self._cycles = cycle_starts(
                steps,
                settings.cycle,
                settings.t_mult,
                per_epoch,
                self._total,
            )
        decay = decay_start(settings.decay, self._total, per_epoch)
        self._decay_start = max(self._warmup, decay)
        self._plateau: Json = {"level": 1.0, "best": None, "waited": 0}

    def place_of(self, step: int) -> float:
        """The place on the curve of a step since the start of the schedule."""
        return step

    def factor(self, step: int) -> float:
        """The factor of the update after `step` updates; in [0, 1].

        cosine, and each cycle of cosine-restarts: half a cosine from 1 to the final factor. Source:
        Loshchilov and Hutter, SGDR, 2017, equation 5. one-cycle: half a cosine up in the warm-up,
        another down to the last step. Source: Smith and Topin, Super-Convergence, 2018; curves as
        torch's OneCycleLR. wsd: 1 until the decay, which falls with the square root of its share.
        Source: Hägele et al., Scaling Laws and Compute-Optimal Training Beyond Fixed Training
        Durations, 2024, equation 1. plateau: as torch's ReduceLROnPlateau with threshold 0 and a
        patience of one less.
        """
        place = self.place_of(step - self._start)
        final = self._final
        steps = self._total - self._warmup
        if self._name == "one-cycle":
            top = self._warmup - 1
            if place < top:
                return _cosine(ONE_CYCLE_START, 1.0, place / top)
            return _cosine(1.0, final, (place - top) / max(steps, 1))
        if place < self._warmup:
            return (place + 1) / (self._warmup + 1)

        if self._name == "constant":
            return 1.0
        if self._name == "plateau":
            return max(self._plateau["level"], final)
        if self._name == "wsd":
            decayed = max(place - self._decay_start, 0)
            share = decayed / max(self._total - self._decay_start, 1)
            return final + (1 - final) * (1 - math.sqrt(share))
        place -= self._warmup
        if self._name == "linear":
            return final + (1 - final) * (1 - place / steps)
        cycle = bisect_right(self._cycles, place) - 1
        begin = self._cycles[cycle]
        end = self._cycles[cycle + 1]
        return _cosine(1.0, final, (place - begin) / (end - begin))

    def add(self, value: float, sign: int) -> None:
        """Add the value of an evaluation: plateau drops the factor after `patience` bad ones.

        `sign`: 1 if larger values are better, -1 if smaller ones are.
        """
        plateau = self._plateau
        best = plateau["best"]
        if math.isfinite(value) and (best is None or sign * (value - best) > 0):
            plateau.update(best=value, waited=0)
            return
        plateau["waited"] += 1
        if plateau["waited"] == self._patience:
            plateau["level"] *= self._drop
            plateau["waited"] = 0

    def facts(self) -> Json:
        """The state that `resume` needs, as JSON; empty without one."""
        return dict(self._plateau) if self._name == "plateau" else {}

    def resume(self, facts: Facts) -> None:
        self._plateau.update(facts)


def warmup_steps(
    warmup: int | str,
    cap: int | str | None,
    steps_per_epoch: int,
    total_steps: int,
) -> int:
    """The steps of a warm-up, at most `cap`. Raises ValueError for a bad duration."""
    steps = duration_steps(warmup, steps_per_epoch, total_steps)
    if cap is None:
        return steps
    return min(steps, duration_steps(cap, steps_per_epoch, total_steps))


def cycle_starts(
    steps: int,
    cycle: int | str,
    t_mult: float,
    steps_per_epoch: int,
    total_steps: int,
) -> list[int]:
    """First steps of the cycles that cover `steps`, and the step after the last cycle.

    Cycle k has length `cycle` × `t_mult`**k in whole steps, or in whole epochs if `cycle` is given
    in epochs.
    """
    first = duration_epochs(cycle)
    unit = steps_per_epoch
    if first is None or first != int(first):
        first = duration_steps(cycle, steps_per_epoch, total_steps)
        unit = 1
    starts = [0]
    while starts[-1] < steps:
        length = round(first * t_mult ** (len(starts) - 1)) * unit
        starts.append(starts[-1] + max(1, length))
    return starts


def _cosine(begin: float, end: float, share: float) -> float:
    return end + (begin - end) * (1 + math.cos(math.pi * share)) / 2
