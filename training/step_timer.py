"""The times of a run: by part, by logged line, and of each step where `train.timing` is on."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch.nn import Module

DATA, FORWARD, BACKWARD, OPTIMIZER = "data", "forward", "backward", "optimizer"
EVALUATION, SAVING = "evaluation", "saving"
OTHER = "other"
PARTS = (DATA, FORWARD, BACKWARD, OPTIMIZER, EVALUATION, SAVING)
PARTS_OF_STEP = (FORWARD, BACKWARD, OPTIMIZER)
_GATHER = "gather"
"""The time in a forward pass between modules, while weights are gathered; FORWARD for users."""
MAX_MARKS = 256
"""Marks that are not read yet, from which those that have passed are read."""


class HostClock:
    """Marks moments of a device that computes while the host waits."""

    def mark(self) -> Any:
        return time.perf_counter()

    def has_passed(self, mark: Any) -> bool:
        """Whether `seconds` need not wait for it."""
        return True

    def seconds(self, begin: Any, end: Any) -> float:
        """How far two marks are apart."""
        return float(end - begin)


class DeviceClock(HostClock):
    """For an asynchronous device: waits for it only when a time is read."""

    def __init__(self, device: torch.device):
        import torch  # not at the top: `compare` reads metrics without it

        self._event = torch.get_device_module(device).Event

    def mark(self) -> Any:
        event = self._event(enable_timing=True)
        event.record()
        return event

    def has_passed(self, mark: Any) -> bool:
        try:
            return bool(mark.query())
        except RuntimeError:  # of an earlier kernel: the run has failed, and reports that
            return False

    def seconds(self, begin: Any, end: Any) -> float:
        end.synchronize()  # of a pass that has long ended
        seconds: float = begin.elapsed_time(end) / 1000
        return seconds


def clock_of(device: torch.device) -> HostClock | None:
    """The clock of what is computed on `device`; None: there is none for a device of its type."""
    if device.type in ("cuda", "xpu"):
        return DeviceClock(device)
    return HostClock() if device.type == "cpu" else None


class StepTimer:
    """Adds up the seconds of each part; every moment belongs to one part.

    Marks of an asynchronous device are events in its queue, which are read after they have passed.
    So no step waits for the device, a part is the time of the device, and waiting for data that
    overlaps with computing counts as computing.
    """

    def __init__(self, times_each_step: bool = False, now: Callable[[], float] = time.perf_counter) -> None:
        """`times_each_step`: wait for the device after each step, and keep its seconds."""
        self._now, self._started = now, now()
        self._paused_s = self._line_began = self._step_began = 0.0
        self._times_each_step = times_each_step
        self.step_seconds: list[float] = []
        """Of each step, without pauses, if each is timed."""
        self.computing_s: float | None = None
        """Mean seconds per step that this rank computed in forward passes, as of `means`."""
        self._clock: HostClock | None = None
        self._begin: Any = None
        self._part, self.part_of_pass = OTHER, FORWARD
        self._marks: deque[tuple[str, Any]] = deque()
        """The end of each part, until it is read."""
        self._seconds = dict.fromkeys((*PARTS, OTHER, _GATHER), 0.0)
        self._steps, self._after_step = 0, self._seconds.copy()
        """Updates that were read, and the seconds of each part after the last of them."""
        self._at_means = self._steps, self._after_step

    @property
    def wall_s(self) -> float:
        """Seconds since the start of the run, over all its processes."""
        return self._now() - self._started

    def begin_steps(self, synchronize: Callable[[], None]) -> None:
        self._synchronize = synchronize
        self._line_began = self._step_began = self._training_s()

    @contextmanager
    def paused(self, part: str = OTHER) -> Iterator[None]:
        """Exclude the time spent inside from the times of steps; it belongs to `part`."""
        began = self._now()
        with self.within(part):
            yield
        self._paused_s += self._now() - began

    def end_step(self) -> None:
        """End a step; waits for the device if each step is timed."""
        if self._times_each_step:
            self._synchronize()
            ended = self._training_s()
            self.step_seconds.append(ended - self._step_began)
            self._step_began = ended

    def end_line(self) -> float:
        """The seconds since the last call, without pauses."""
        began, self._line_began = self._line_began, self._training_s()
        return self._line_began - began

    def _training_s(self) -> float:
        return self._now() - self._paused_s

    def start(self, clock: HostClock | None) -> None:
        """Measure parts with `clock`; None: the device has none, and they are not measured."""
        self._clock = clock
        if clock is not None:
            self._begin = clock.mark()

    def enter(self, part: str) -> None:
        """Let the time from now on belong to `part`."""
        if self._clock is None:
            return
        self._marks.append((self._part, self._clock.mark()))
        self._part = part
        if len(self._marks) >= MAX_MARKS:
            self.read()

    @contextmanager
    def within(self, part: str) -> Iterator[None]:
        """Inside, time belongs to `part`; after it to none."""
        self.enter(part)
        try:
            yield
        finally:
            self.enter(OTHER)

    @contextmanager
    def forward(self) -> Iterator[None]:
        """Around each forward pass: what follows it is backward."""
        self.enter(self.part_of_pass)
        yield
        self.enter(BACKWARD)

    def time_modules(self, module: Module) -> None:
        """Let `computing_s` count the modules with weights of their own, one by one.

        For an engine that gathers weights in a forward pass, where a rank waits for the others.
        """
        self.part_of_pass = _GATHER
        if any(part._compiled_call_impl is not None for part in module.modules()):
            return  # hooks would cut its graph: nothing counts
        for part in module.modules():
            if not any(part.children()) and any(True for _ in part.parameters(recurse=False)):
                # After the hooks that gather weights, and before those that free them.
                part.register_forward_pre_hook(lambda *_: self._switch(_GATHER, FORWARD))
                part.register_forward_hook(lambda *_: self._switch(FORWARD, _GATHER), prepend=True)

    def _switch(self, before: str, part: str) -> None:
        """Enter `part` from the part `before` of a forward pass of training."""
        if self._part == before:
            self.enter(part)

    def read(self, wait: bool = False) -> None:
        """Read the marks that have passed; with `wait` all of them."""
        clock, marks = self._clock, self._marks
        while clock is not None and marks and (wait or clock.has_passed(marks[0][1])):
            part, end = marks.popleft()
            self._seconds[part] += clock.seconds(self._begin, end)
            self._begin = end
            if part == OPTIMIZER:
                self._steps, self._after_step = self._steps + 1, self._seconds.copy()

    def means(self) -> dict[str, float]:
        """Mean seconds of forward, backward and optimizer in the steps since the last call.

        Of the steps that the device has ended; empty: none.
        """
        self.read()
        (steps, before), now = self._at_means, self._after_step
        self._at_means, self.computing_s = (self._steps, now), None
        if not (count := self._steps - steps):
            return {}
        self.computing_s = (now[FORWARD] - before[FORWARD]) / count
        old, new = _joined(before), _joined(now)
        return {part: (new[part] - old[part]) / count for part in PARTS_OF_STEP}

    def facts(self) -> dict[str, float]:
        """The seconds of each part so far, as JSON, for `resume`."""
        self.read()
        return _joined(self._seconds)

    def resume(self, facts: Mapping[str, float], wall_s: float) -> None:
        """Continue from the facts of an earlier process, which took `wall_s`."""
        self._started -= wall_s
        self._seconds |= {part: facts.get(part, 0.0) for part in PARTS}
        self._after_step = self._seconds.copy()
        self._at_means = self._steps, self._after_step

    def summary(self, wall_s: float) -> dict[str, float] | None:
        """The "time_split" of result.json, which adds up to `wall_s`; None: nothing is measured."""
        if self._clock is None:
            return None
        split = {f"{part}_s": seconds for part, seconds in self.facts().items()}
        return {**split, f"{OTHER}_s": max(wall_s - sum(split.values()), 0.0)}


def _joined(seconds: Mapping[str, float]) -> dict[str, float]:
    """The seconds of PARTS, where forward passes include the wait for weights."""
    return {part: seconds[part] for part in PARTS} | {FORWARD: seconds[FORWARD] + seconds[_GATHER]}
