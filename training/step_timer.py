"""The times of a run: by part, by logged line, and of each step where `train.timing` is on."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from gearshift.training.callbacks.base import Numbers

if TYPE_CHECKING:
    import torch

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

    def facts(self) -> dict[str, float]:
        """The seconds of each part that the device has ended, as JSON, for `resume`."""
        begins = self._begins
        is_host = self._now is time.perf_counter
        with suppress(RuntimeError):  # of an earlier kernel: the run has failed, and reports that
            while len(begins) > 1 and (is_host or begins[1][1].query()):
                part, begin = begins.popleft()
                end = begins[0][1]
                if is_host:
                    self._seconds[part] += end - begin
                else:
                    self._seconds[part] += begin.elapsed_time(end) / 1000
        return {part: self._seconds[part] for part in PARTS}

    def means(self, steps: int) -> dict[str, float]:
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

    def summary(self, wall_s: float) -> dict[str, float] | None:
        """The "time_split" of result.json, which adds up to `wall_s`; None: nothing is measured."""
        if not self._now:
            return None
        split = {f"{part}_s": seconds for part, seconds in self.facts().items()}
        split[f"{OTHER}_s"] = max(wall_s - sum(split.values()), 0.0)
        return split
