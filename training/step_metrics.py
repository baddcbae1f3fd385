"""Step metrics: losses, times and units of the steps since the last logged one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from training import throughput
from training.callbacks.base import StepMetrics
from training.resources import memory

if TYPE_CHECKING:
    import torch

    from engines.base import World
    from training.callbacks.base import Step
    from training.train_plan import TrainPlan


class RunMetrics:
    """Adds up the steps since the last logged one.

    The first and the last step are logged, and every `log_every`-th. One that was skipped has no
    loss to show, so the next one is logged in its place. What a run logs does not depend on where
    another process took over.
    """

    def __init__(
        self,
        train_plan: TrainPlan,
        log_every: int,
        precision: str,
        is_timed: bool = False,
        now: Callable[[], float] = time.perf_counter,
    ):
        """`is_timed`: each step is timed by itself, too."""
        self._now = now
        self._timing = StepTiming(train_plan, now) if is_timed else None
        self.units = 0
        """Of all steps so far."""
        self._budget = train_plan
        self._every = log_every
        self._precision = precision
        self._shown: Step | None = None
        self._owed = False
        self._samples_per_s: float | None = None
        self._timed = (0, 0.0)
        self._begin_line()

    def facts(self) -> dict[str, Any]:
        """What `resume` needs, as plain numbers."""
        return {"units": self.units, "owed": self._owed, "skipped": self._line_skipped}

    def resume(self, facts: Mapping[str, Any]) -> None:
        """Go on from what another process wrote down."""
        self.units, self._owed = facts["units"], facts.get("owed", False)
        self._line_skipped = facts.get("skipped", 0)

    def start(self, device: torch.device) -> None:
        """The first step begins."""
        self._since = self._now()
        if self._timing:
            self._timing.start(device)

    def add(self, step: Step) -> bool:
        """Take in a step; true where a line is due. The same on every rank."""
        if self._timing:
            self._timing.lap()
        self.units += step.units
        self._line_units += step.units
        self._line_steps += 1
        self._line_skipped += step.skipped
        self._line_data_s += step.data_s
        self._owed = self._owed or step.step == 1 or step.step % self._every == 0
        # fp16 skips an update with a sound loss, while it looks for a scale of the loss.
        if not step.skipped or step.loss_scale is not None:
            self._shown = step
            return self._owed
        return False

    @property
    def is_behind(self) -> bool:
        """Whether there are steps that no line has shown."""
        return self._line_steps > 0 and self._shown is not None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What is done meanwhile is no part of a step."""
        began = self._now()
        yield
        paused = self._now() - began
        self._since += paused
        if self._timing:
            self._timing.leave_out(paused)

    def line(self, world: World) -> StepMetrics:
        """The newest step with a loss, and means over all since the last line. Collective."""
        step = self._shown
        assert step is not None
        names = sorted(step.parts)
        own = torch.stack([step.loss, *(step.parts[name].to(step.loss) for name in names)])
        loss, *parts = world.sum(own).tolist()  # The host waits for the device here.
        seconds = self._now() - self._since
        steps = self._line_steps
        samples_per_s = steps * self._budget.global_batch / seconds
        self._remember(steps, seconds)
        line = StepMetrics(
            step=step.step,
            epoch=self._budget.epoch(step.step),
            samples=self._budget.samples(step.step),
            units=self.units,
            loss=loss / world.size,
            parts={
                name: part / max(step.units, 1) for name, part in zip(names, parts, strict=True)
            },
            grad_norm=step.norm.item(),
            lr=step.lr,
            skipped=self._line_skipped,
            loss_scale=step.loss_scale,
            step_time_s=seconds / steps,
            data_time_s=self._line_data_s / steps,
            samples_per_s=samples_per_s,
            units_per_s=self._line_units / seconds,
            mfu=throughput.mfu(
                self._budget.flops_per_sample,
                samples_per_s,
                world.device,
                self._precision,
                world.size,
            ),
            device_memory_bytes=memory.device_bytes(world.device),
            host_memory_bytes=memory.host_bytes(),
        )
        self._begin_line()
        return line

    @property
    def samples_per_s(self) -> float | None:
        """Over all steps but those of the first line, where there are any; None: nothing logged."""
        return self._samples_per_s

    @property
    def timing(self) -> Mapping[str, float] | None:
        """How long single steps took; None: nobody asked."""
        return self._timing.summary() if self._timing else None

    def _begin_line(self) -> None:
        self._line_steps = self._line_units = self._line_skipped = 0
        self._line_data_s = 0.0
        self._owed = False
        self._shown = None
        self._since = self._now()

    def _remember(self, steps: int, seconds: float) -> None:
        if self._samples_per_s is not None:
            # The first step compiles, allocates and waits for the first batch.
            steps, seconds = self._timed[0] + steps, self._timed[1] + seconds
            self._timed = steps, seconds
        self._samples_per_s = steps * self._budget.global_batch / seconds


WARMUP = 10
"""Steps that are left out: they compile, choose kernels, allocate and fill caches."""
_LEAST_SHARE = 5
"""Of a run shorter than so many times WARMUP, a step in so many is left out."""


class StepTiming:
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
