"""Step metrics: losses, times and units of the steps since the last logged one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gearshift.training.callbacks.base import Facts, Numbers, StepMetrics
from gearshift.training.resources import memory
from gearshift.training.step_timer import BACKWARD, FORWARD, OPTIMIZER, StepTimer

if TYPE_CHECKING:
    from gearshift.engines.base import World
    from gearshift.training.callbacks.base import Step
    from gearshift.training.train_plan import TrainPlan

WARMUP = 10
"""Steps that `timing` leaves out: they compile, choose kernels, allocate and fill caches."""
# In a run shorter than this many times WARMUP, one step in this many is left out.
_WARMUP_FRACTION = 5


class RunMetrics:
    """Sums up the steps since the last logged one, and measures time and memory of the run.

    The first and the last step are logged, and every `log_every`-th. A skipped step has no loss to
    log, so the next one is logged instead. The log of a run does not depend on where it was
    resumed.
    """

    def __init__(
        self,
        train_plan: TrainPlan,
        log_every: int,
        precision: str,
        timer: StepTimer,
        peak_memory: memory.PeakMemory | None = None,
    ):
        """`peak_memory` counts from its creation."""
        self._plan = train_plan
        self._every = log_every
        self._precision = precision
        self._timer = timer
        self.peaks = peak_memory or memory.PeakMemory()
        self.units = self.labelled = 0
        """Of all steps so far: what they computed, and what the loss counted."""
        self.rank_times = np.zeros((3, 1))
        """Of the newest line, seconds per step [kind, rank]: forward, waits for data, all."""
        self.samples_per_s: float | None = None
        """Over all steps but those of the first line, if there are others; None: none logged."""
        self._last: Step | None = None
        self._measured = (0, 0.0)
        self._line_end_s = 0.0
        self._begin_line()

    def facts(self) -> dict[str, Any]:
        return {
            "units": self.units,
            "labelled": self.labelled,
            "skipped": self._skipped,
            "is_log_due": self._is_log_due,
        }

    def resume(self, facts: Facts) -> None:
        self.units = facts["units"]
        self._is_log_due = facts.get("is_log_due", False)
        self._skipped = facts.get("skipped", 0)
        self.labelled = facts.get("labelled", self.units)

    def add(self, step: Step) -> bool:
        """Add a step; True if it must be logged. The same on every rank."""
        self._timer.end_step()
        computed = step.units if step.tokens is None else step.tokens
        self.units += computed
        self.labelled += step.units
        self._line_units += computed
        self._line_labelled += step.units
        self._steps += 1
        self._skipped += step.skipped
        self._data_s += step.data_s
        self._is_log_due = self._is_log_due or step.step == 1 or step.step % self._every == 0
        # fp16 skips updates with a valid loss while it searches for a loss scale.
        if not step.skipped or step.loss_scale is not None:
            self._last = step
            return self._is_log_due
        return False

    @property
    def is_behind(self) -> bool:
        return self._last is not None

    def line(self, world: World) -> StepMetrics:
        """The newest step with a loss, and means since the last logged step. Collective."""
        import torch  # not at the top: `compare` reads metrics without it

        step = self._last
        assert step is not None
        steps = self._steps
        names = sorted(step.parts)
        parts = [step.parts[name].to(step.loss) for name in names]
        sums = torch.stack([step.loss, *parts]).cpu()  # the host waits for the device here
        means = self._timer.means(steps)
        line_s = self._timer.steps_s - self._line_end_s
        times = torch.zeros(3, world.size, dtype=sums.dtype)
        rank_times = [
            means.get(FORWARD, 0.0),
            self._data_s / steps,
            line_s / steps,
        ]
        times[:, world.rank] = torch.tensor(rank_times)
        # One collective for all: ranks wait for each other in it.
        total = world.sum(torch.cat([sums, times.flatten()]))
        loss, *part_sums = total[: len(sums)].tolist()
        self.rank_times = total[len(sums) :].view(times.shape).double().numpy()

        end_s = self._timer.steps_s
        seconds = end_s - self._line_end_s
        self._line_end_s = end_s
        samples_per_s = steps * self._plan.global_batch / seconds
        self._measure(steps, seconds)
        units = max(step.units, 1)
        labelled = None
        labelled_per_s = None
        if step.tokens is not None:
            labelled = self.labelled
            labelled_per_s = self._line_labelled / seconds
        metrics = StepMetrics(
            step=step.step,
            epoch=self._plan.epoch(step.step),
            samples=self._plan.samples(step.step),
            units=self.units,
            loss=loss / world.size,
            parts={name: part / units for name, part in zip(names, part_sums, strict=True)},
            grad_norm=step.norm.item(),
            lr=step.lr,
            skipped=self._skipped,
            loss_scale=step.loss_scale,
            step_time_s=seconds / steps,
            data_time_s=self._data_s / steps,
            samples_per_s=samples_per_s,
            units_per_s=self._line_units / seconds,
            mfu=self._mfu(samples_per_s, world),
            device_memory_bytes=memory.device_bytes(world.device),
            host_memory_bytes=memory.host_bytes(),
            forward_time_s=means.get(FORWARD),
            backward_time_s=means.get(BACKWARD),
            optimizer_time_s=means.get(OPTIMIZER),
            lrs=step.lrs,
            labelled=labelled,
            labelled_per_s=labelled_per_s,
        )
        self._begin_line()
        return metrics

    def _measure(self, steps: int, seconds: float) -> None:
        measured_steps = steps
        measured_s = seconds
        # The first step compiles, allocates and waits for the first batch.
        if self.samples_per_s is not None:
            measured_steps += self._measured[0]
            measured_s += self._measured[1]
            self._measured = measured_steps, measured_s
        self.samples_per_s = measured_steps * self._plan.global_batch / measured_s

    def _mfu(self, samples_per_s: float, world: World) -> float | None:
        if world.device.type != "cuda" or self._plan.flops_per_sample is None:
            return None
        from gearshift.training import throughput  # reads the data sheets of GPUs

        return throughput.mfu(
            self._plan.flops_per_sample,
            samples_per_s,
            world.device,
            self._precision,
            world.size,
        )

    def _begin_line(self) -> None:
        self._steps = self._line_units = self._line_labelled = self._skipped = 0
        self._data_s = 0.0
        self._is_log_due = False
        self._last = None


def timing(step_ends: Sequence[float], train_plan: TrainPlan) -> Numbers | None:
    """The "timing" of result.json for steps that end at these seconds; None: there are none.

    Seconds per step: median, 10th and 90th percentile. `batches_per_s` (micro-batches of all
    ranks) and `samples_per_s` follow from the median.
    """
    if not step_ends:
        return None
    warmup_steps = warmup(len(step_ends))
    seconds = np.diff(step_ends, prepend=0.0)
    p10, median, p90 = np.percentile(seconds[warmup_steps:], (10, 50, 90)).tolist()
    return {
        "steps": len(seconds) - warmup_steps,
        "warmup_steps": warmup_steps,
        "median_s": median,
        "p10_s": p10,
        "p90_s": p90,
        "batches_per_s": train_plan.accumulation * train_plan.world_size / median,
        "samples_per_s": train_plan.global_batch / median,
    }


def warmup(steps: int) -> int:
    """How many of the first `steps` are left out; at least one stays."""
    return min(WARMUP, max(1, steps // _WARMUP_FRACTION), steps - 1)
