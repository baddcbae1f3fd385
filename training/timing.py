"""How long single steps take, each one timed by itself and waited for."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from training.resources import memory

if TYPE_CHECKING:
    import torch

    from training.callbacks.base import TrainPlan

WARMUP = 10
"""Steps that are left out: they compile, choose kernels, allocate and fill caches."""
_LEAST_SHARE = 5
"""Of a run shorter than so many times WARMUP, a step in so many is left out."""


class Timing:
    """Times steps from the end of one to the end of the next, batches waited for.

    What pauses training between two steps, such as evaluation, is left out.
    """

    def __init__(self, train_plan: TrainPlan, now: Callable[[], float] = time.perf_counter):
        self._budget = train_plan
        self._now = now
        self._laps: list[float] = []
        self._since = 0.0
        self._device: torch.device | None = None

    def start(self, device: torch.device) -> None:
        """The first step begins."""
        self._device = device
        self._since = self._now()

    def lap(self) -> None:
        """A step has ended; waits for the device."""
        assert self._device is not None, "start comes first"
        memory.synchronize(self._device)
        end = self._now()
        self._laps.append(end - self._since)
        self._since = end

    def leave_out(self, seconds: float) -> None:
        """So much of the time since the last step was no part of one."""
        self._since += seconds

    def summary(self) -> Mapping[str, float] | None:
        """What becomes of it in result.json; None where no step was taken.

        Seconds of a step: median, and the 10th and 90th percentile. Batches are micro-batches, of
        all ranks; they and samples a second are those of the median.
        """
        if not self._laps:
            return None
        left_out = warmup(len(self._laps))
        laps = sorted(self._laps[left_out:])
        median = percentile(laps, 50)
        batches = self._budget.accumulation * self._budget.world_size
        return {
            "steps": len(laps),
            "warmup_steps": left_out,
            "median_s": median,
            "p10_s": percentile(laps, 10),
            "p90_s": percentile(laps, 90),
            "batches_per_s": batches / median,
            "samples_per_s": self._budget.global_batch / median,
        }


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The value below which `percent` of `ordered` lie, between two of them where need be.

    Source: Hyndman and Fan, Sample Quantiles in Statistical Packages, 1996, definition 7.
    """
    place = (len(ordered) - 1) * percent / 100
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def warmup(steps: int) -> int:
    """Of so many steps, the first ones that are left out; one at least stays."""
    return min(WARMUP, max(1, steps // _LEAST_SHARE), steps - 1)
