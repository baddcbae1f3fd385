"""The time split: seconds of a run by part, from marks where one part ends and the next begins."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.clock import Clock

DATA, FORWARD, BACKWARD, OPTIMIZER = "data", "forward", "backward", "optimizer"
EVALUATION, SAVING = "evaluation", "saving"
OTHER = "other"
PARTS = (DATA, FORWARD, BACKWARD, OPTIMIZER, EVALUATION, SAVING)
PARTS_OF_STEP = (FORWARD, BACKWARD, OPTIMIZER)
MOST_MARKS = 256
"""Marks that are not read yet, from which those that have passed are read."""


class TimeSplit:
    """Adds up the seconds of each part; every moment belongs to one part.

    Marks of an asynchronous device are events in its queue, which are read after they have passed.
    So no step waits for the device, a part is the time of the device, and waiting for data that
    overlaps with computing counts as computing.
    """

    def __init__(self) -> None:
        self._clock: Clock | None = None
        self._begin: Any = None
        self._part = OTHER
        self._marks: deque[tuple[str, Any]] = deque()
        """The end of each part, until it is read."""
        self._seconds = dict.fromkeys((*PARTS, OTHER), 0.0)
        self._steps, self._after_step = 0, _sums(self._seconds)
        """Updates that were read, and the seconds of PARTS_OF_STEP after the last of them."""
        self._of_last_line = self._steps, self._after_step

    def start(self, clock: Clock | None) -> None:
        """Measure from now on with `clock`; None: the device has none, and nothing is measured."""
        self._clock = clock
        if clock is not None:
            self._begin = clock.mark()

    def enter(self, part: str) -> None:
        """Let the time from now on belong to `part`."""
        if self._clock is None:
            return
        self._marks.append((self._part, self._clock.mark()))
        self._part = part
        if len(self._marks) >= MOST_MARKS:
            self.read()

    @contextmanager
    def within(self, part: str) -> Iterator[None]:
        """Inside, time belongs to `part`; after it to none."""
        self.enter(part)
        try:
            yield
        finally:
            self.enter(OTHER)

    def passes(self, forward: AbstractContextManager[None]) -> AbstractContextManager[None]:
        """A context around each forward pass and `forward`: what follows it is backward."""
        return _Passes(self, forward)

    def read(self, wait: bool = False) -> None:
        """Read the marks that have passed; with `wait` all of them."""
        clock, marks = self._clock, self._marks
        while clock is not None and marks and (wait or clock.has_passed(marks[0][1])):
            part, end = marks.popleft()
            self._seconds[part] += clock.seconds(self._begin, end)
            clock.release(self._begin)
            self._begin = end
            if part == OPTIMIZER:
                self._steps, self._after_step = self._steps + 1, _sums(self._seconds)

    def means(self) -> dict[str, float]:
        """Mean seconds of forward, backward and optimizer in the steps since the last call.

        Of the steps that the device has ended; empty: none.
        """
        self.read()
        (steps, before), now = self._of_last_line, self._after_step
        self._of_last_line = self._steps, now
        if self._steps == steps:
            return {}
        sums = zip(PARTS_OF_STEP, before, now, strict=True)
        return {part: (after - since) / (self._steps - steps) for part, since, after in sums}

    def facts(self) -> dict[str, float]:
        """The seconds of each part so far, as JSON, for `resume`."""
        self.read()
        return {part: self._seconds[part] for part in PARTS}

    def resume(self, facts: Mapping[str, float]) -> None:
        """Continue from the facts of an earlier process."""
        self._seconds |= {part: facts.get(part, 0.0) for part in PARTS}
        self._after_step = _sums(self._seconds)
        self._of_last_line = self._steps, self._after_step

    def summary(self, wall_s: float) -> dict[str, float] | None:
        """The "time_split" of result.json, which adds up to `wall_s`; None: nothing is measured."""
        if self._clock is None:
            return None
        found = {f"{part}_s": seconds for part, seconds in self.facts().items()}
        return {**found, f"{OTHER}_s": max(wall_s - sum(found.values()), 0.0)}


class _Passes:
    """See TimeSplit.passes."""

    def __init__(self, split: TimeSplit, forward: AbstractContextManager[None]):
        self._split, self._forward = split, forward

    def __enter__(self) -> None:
        self._split.enter(FORWARD)
        self._forward.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._forward.__exit__(kind, error, trace)
        self._split.enter(BACKWARD)


def _sums(seconds: Mapping[str, float]) -> tuple[float, ...]:
    return tuple(seconds[part] for part in PARTS_OF_STEP)
