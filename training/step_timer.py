"""The times of a run: by part, by logged line, and of each step where `train.timing` is on."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from training.callbacks.base import Numbers

if TYPE_CHECKING:
    import torch

DATA, FORWARD, BACKWARD, OPTIMIZER = "data", "forward", "backward", "optimizer"
EVALUATION, SAVING, OTHER = "evaluation", "saving", "other"
PARTS = (DATA, FORWARD, BACKWARD, OPTIMIZER, EVALUATION, SAVING)
PARTS_OF_STEP = (FORWARD, BACKWARD, OPTIMIZER)
MAX_MARKS = 256
"""Marks that are not read yet, from which those that have passed are read."""


class Clock:
    """Marks moments of a device: events in its queue, or on a CPU the time."""

    def __init__(self, device: torch.device):
        self._new_event: Callable[..., Any] | None = None
        if device.type != "cpu":
            import torch  # not at the top: `compare` reads metrics without it

            self._new_event = torch.get_device_module(device).Event

    def mark(self) -> Any:
        if self._new_event is None:
            return time.perf_counter()
        event = self._new_event(enable_timing=True)
        event.record()
        return event

    def seconds(self, begin: Any, end: Any, wait: bool) -> float | None:
        """How far two marks are apart; None: the second has not passed, and we do not `wait`."""
        if self._new_event is None:
            return float(end - begin)
        try:
            if not wait and not end.query():
                return None
        except RuntimeError:  # of an earlier kernel: the run has failed, and reports that
            return None
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1000


class StepTimer:
    """Adds up the seconds of each part; every moment belongs to one part.

    Marks of an asynchronous device are read after they have passed. So no step waits for the device,
    a part is the time of the device, and waiting for data that overlaps with computing counts as
    computing.
    """

    def __init__(self, times_each_step: bool = False, now: Callable[[], float] = time.perf_counter) -> None:
        """`times_each_step`: wait for the device after each step, and keep its seconds."""
        self._now, self._started = now, now()
        self._paused_s = self._line_began = self._step_began = 0.0
        self._times_each_step = times_each_step
        self.step_seconds: list[float] = []
        """Of each step, without pauses, if each is timed."""
        self._clock: Clock | None = None
        self._begin: Any = None
        self._part = OTHER
        self._marks: deque[tuple[str, Any]] = deque()  # The end of each part, until it is read
        self._seconds = dict.fromkeys((*PARTS, OTHER), 0.0)
        # Updates that were read since the last means, and the seconds of each part before and after them.
        self._steps, self._before = 0, self._seconds.copy()
        self._after = self._before

    @property
    def wall_s(self) -> float:
        """Seconds since the start of the run, over all its processes."""
        return self._now() - self._started

    def begin_steps(self, synchronize: Callable[[], None]) -> None:
        self._synchronize = synchronize
        self._line_began = self._step_began = self._now() - self._paused_s

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
            began, self._step_began = self._step_began, self._now() - self._paused_s
            self.step_seconds.append(self._step_began - began)

    def end_line(self) -> float:
        """The seconds since the last call, without pauses."""
        began, self._line_began = self._line_began, self._now() - self._paused_s
        return self._line_began - began

    def start(self, clock: Clock | None) -> None:
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

    def read(self, wait: bool = False) -> None:
        """Read the marks that have passed; with `wait` all of them."""
        while self._clock is not None and self._marks:
            part, end = self._marks[0]
            if (seconds := self._clock.seconds(self._begin, end, wait)) is None:
                return
            self._marks.popleft()
            self._seconds[part] += seconds
            self._begin = end
            if part == OPTIMIZER:
                self._steps, self._after = self._steps + 1, self._seconds.copy()

    def means(self) -> dict[str, float]:
        """Mean seconds of forward, backward and optimizer in the steps since the last call.

        Of the steps that the device has ended; empty: none.
        """
        self.read()
        steps, before, after = self._steps, self._before, self._after
        self._steps, self._before = 0, after
        return {part: (after[part] - before[part]) / steps for part in PARTS_OF_STEP if steps}

    def facts(self) -> dict[str, float]:
        """The seconds of each part so far, as JSON, for `resume`."""
        self.read()
        return {part: self._seconds[part] for part in PARTS}

    def resume(self, facts: Numbers, wall_s: float) -> None:
        """Continue from the facts of an earlier process, which took `wall_s`."""
        self._started -= wall_s
        self._seconds |= {part: facts.get(part, 0.0) for part in PARTS}
        self._before = self._after = self._seconds.copy()

    def summary(self, wall_s: float) -> dict[str, float] | None:
        """The "time_split" of result.json, which adds up to `wall_s`; None: nothing is measured."""
        if self._clock is None:
            return None
        split = {f"{part}_s": seconds for part, seconds in self.facts().items()}
        return {**split, f"{OTHER}_s": max(wall_s - sum(split.values()), 0.0)}
