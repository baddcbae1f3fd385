"""Step metrics: losses, times of the parts of steps, and units, since the last logged step."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from gearshift.training.callbacks.base import Facts, Json, Numbers, StepMetrics
from gearshift.training.resources import memory

if TYPE_CHECKING:
    import torch

    from gearshift.engines.base import World
    from gearshift.training.callbacks.base import Step
    from gearshift.training.train_plan import TrainPlan


DATA = "data"
FORWARD = "forward"
BACKWARD = "backward"
OPTIMIZER = "optimizer"
EVALUATION = "evaluation"
SAVING = "saving"
OTHER = "other"
PARTS = (DATA, FORWARD, BACKWARD, OPTIMIZER, EVALUATION, SAVING)
PARTS_OF_STEP = (FORWARD, BACKWARD, OPTIMIZER)


class StepTimer:
    """Adds up the seconds of each part; every moment belongs to one part.

    A part begins with an event in the queue of the device, which is read after the device has
    passed it. So no step waits for the device, a part is the time of the device, and waiting for
    data that overlaps with computing counts as computing.
    """

    def __init__(self, times_each_step: bool = False) -> None:
        """`times_each_step`: wait for the device after each step, and keep its end."""
        self._started = self._steps_began = time.perf_counter()
        self._times_each_step = times_each_step
        self.step_ends: list[float] = []
        """`steps_s` after each step, if each is timed."""
        self._now: Callable[[], Any] | None = None
        self._begins: deque[tuple[str, Any]] = deque()  # Of each part, until it is read
        self._seconds = dict.fromkeys((*PARTS, OTHER), 0.0)
        self._line = self.facts()  # At the last means

    @property
    def wall_s(self) -> float:
        """Seconds since the start of the run, over all its processes."""
        return time.perf_counter() - self._started

    @property
    def steps_s(self) -> float:
        """Seconds since the begin of the steps, without pauses."""
        return time.perf_counter() - self._steps_began

    def start(self, device: torch.device) -> None:
        """Measure the parts from now on; mps has no events, and nothing is measured."""
        import torch  # not at the top: `compare` reads metrics without it

        runtime = torch.get_device_module(device)
        self._synchronize = runtime.synchronize
        if device.type == "cpu":
            self._now = time.perf_counter
        elif device.type != "mps":

            def now() -> Any:
                event = runtime.Event(enable_timing=True)
                return runtime.current_stream(device).record_event(event)

            self._now = now
        self.enter(OTHER)

    def begin_steps(self) -> None:
        self._steps_began = time.perf_counter()

    def enter(self, part: str) -> None:
        """Let the time from now on belong to `part`."""
        if self._now is not None:
            self._begins.append((part, self._now()))

    def now(self) -> Any:
        """This moment of the device, for `seconds_between`; None: nothing is measured."""
        return self._now and self._now()

    def seconds_between(self, begin: Any, end: Any) -> float:
        """Between two moments that the device has passed."""
        if self._now is time.perf_counter:
            return float(end - begin)
        return float(begin.elapsed_time(end)) / 1000 if begin is not None else 0.0

    @contextmanager
    def paused(self, part: str = OTHER) -> Iterator[None]:
        """Inside, time belongs to `part` and to no step."""
        began = time.perf_counter()
        self.enter(part)
        try:
            yield
        finally:
            self.enter(OTHER)
            self._steps_began += time.perf_counter() - began

    def end_step(self) -> None:
        """End a step; waits for the device if each step is timed."""
        self.facts()
        if self._times_each_step:
            self._synchronize()
            self.step_ends.append(self.steps_s)

    def facts(self) -> Numbers:
        """The seconds of each part that the device has ended, as JSON, for `resume`."""
        begins = self._begins
        is_host = self._now is time.perf_counter
        with suppress(RuntimeError):  # of an earlier kernel: the run has failed, and reports that
            while len(begins) > 1 and (is_host or begins[1][1].query()):
                part, begin = begins.popleft()
                self._seconds[part] += self.seconds_between(begin, begins[0][1])
        return {part: self._seconds[part] for part in PARTS}

    def means(self, steps: int) -> Numbers:
        """Mean seconds of forward, backward and optimizer in the `steps` since the last call."""
        before = self._line
        self._line = self.facts()
        if not self._now:
            return {}
        return {part: (self._line[part] - before[part]) / steps for part in PARTS_OF_STEP}

    def resume(self, facts: Numbers, wall_s: float) -> None:
        """Continue from the facts of an earlier process, which took `wall_s`."""
        self._started -= wall_s
        self._seconds |= facts
        self._line = self.facts()

    def summary(self, wall_s: float) -> Numbers | None:
        """The "time_split" of result.json, which adds up to `wall_s`; None: nothing is measured."""
        if not self._now:
            return None
        split = {f"{part}_s": seconds for part, seconds in self.facts().items()}
        split[f"{OTHER}_s"] = max(wall_s - sum(split.values()), 0.0)
        return split


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
        self.computing_s: Callable[[], float] | None = None
        """Of the steps since the last line, where the forward pass waits for other ranks."""
        self.samples_per_s: float | None = None
        """Over all steps but those of the first line, if there are others; None: none logged."""
        self._last: Step | None = None
        self._later_steps = 0
        self._later_s = 0.0
        self._line_end_s = 0.0
        self._begin_line()

    def facts(self) -> Json:
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
        data_s = self._data_s / steps
        step_s = (self._timer.steps_s - self._line_end_s) / steps
        computing_s = means.get(FORWARD, 0.0)
        if self.computing_s is not None:
            computing_s = self.computing_s() / steps
        times = torch.zeros(3, world.size, dtype=sums.dtype)
        times[:, world.rank] = torch.tensor([computing_s, data_s, step_s])
        # One collective for all: ranks wait for each other in it.
        total = world.sum(torch.cat([sums, times.flatten()]))
        loss, *part_sums = total[: len(sums)].tolist()
        self.rank_times = total[len(sums) :].view(times.shape).double().numpy()

        end_s = self._timer.steps_s
        seconds = end_s - self._line_end_s
        self._line_end_s = end_s
        samples_per_s = steps * self._plan.global_batch / seconds
        # The first step compiles, allocates and waits for the first batch.
        if self.samples_per_s is None:
            self.samples_per_s = samples_per_s
        else:
            self._later_steps += steps
            self._later_s += seconds
            later = self._later_steps * self._plan.global_batch
            self.samples_per_s = later / self._later_s
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
            data_time_s=data_s,
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
