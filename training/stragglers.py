"""Stragglers: ranks that keep all others waiting, found by their own times and named with host."""

from __future__ import annotations

import socket
from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch.nn import Module

    from engines.base import Engine
    from training.callbacks.base import StepMetrics
    from training.callbacks.callback_list import CallbackList
    from training.step_timer import StepTimer

BLOCK_S = 2.0
"""Least seconds of training that are compared as one block, which averages out hiccups."""
BLOCK_STEPS = 4
BLOCKS = 5
SLOW_BLOCKS = 4
"""A rank is reported if it is slow in this many of the last BLOCKS."""
MIN_SHARE = 0.1
"""Of a step: a rank counts as slow only if it takes longer than others by more than this."""
KINDS = ("step", "data")
"""Computing its own share of a step; waiting for its batches."""
UNIT_S = 1e-9
"""Times are integers in this unit, so that sums are exact."""


class _RankTimes(NamedTuple):
    """Times of a rank since the last logged step, in units of UNIT_S."""

    step: int
    steps: int
    computing: int
    data: int
    whole: int


class Stragglers:
    """Compares the times that each rank spends by itself, at logged steps.

    Steps take equally long on all ranks, no matter which rank is slow. So each rank measures its
    forward passes and the wait for its own batches. Backward passes are left out: they exchange
    gradients, and a rank waits there for the slowest. A slow processor, device or memory is slow in
    forward passes, too. The sums travel with the agreement before the next step; all ranks see all
    times and reach the same result.
    """

    def __init__(
        self,
        ratio: float,
        engine: Engine,
        module: Module,
        callbacks: CallbackList,
        timer: StepTimer,
        step: int,
        block_s: float = BLOCK_S,
    ):
        """Measure from the step after `step` on. Collective.

        `ratio` to the other ranks' times counts as slow.
        """
        self._ratio, self._callbacks, self._timer, self._block_s = ratio, callbacks, timer, block_s
        self._world, self._step = engine.world, step
        if engine.gathers_weights:
            timer.time_modules(module)
        name = socket.gethostname().encode()
        names = [self._world.broadcast(name, rank) for rank in range(self._world.size)]
        self._hosts = [name.decode(errors="replace") for name in names]
        self._is_first = True
        self._times: list[int] = []
        self._reported: set[tuple[int, str]] = set()
        self._pending: _RankTimes | None = None
        self._sent: _RankTimes | None = None
        self._slow: deque[set[tuple[int, str]]] = deque(maxlen=BLOCKS)
        self._begin_block()

    def note(self, metrics: StepMetrics) -> None:
        """Take the times of this rank since the last logged step."""
        steps, self._step = metrics.step - self._step, metrics.step
        if self._is_first:  # compiles, allocates, waits for the first batch
            self._is_first = False
            return
        seconds = (self._timer.computing_s or 0.0, metrics.data_time_s, metrics.step_time_s)
        times = (round(value * steps / UNIT_S) for value in seconds)
        self._pending = _RankTimes(metrics.step, steps, *times)

    def own_times(self) -> Sequence[int]:
        """The times to sum over ranks before the next step; empty if no step was logged.

        In units of UNIT_S: computing [rank], data [rank], and whole steps by the clock of rank 0,
        so that a block ends at the same step on all ranks.
        """
        self._sent, self._pending = self._pending, None
        if self._sent is None:
            return []
        rank, size = self._world.rank, self._world.size
        times = [0] * (len(KINDS) * size + 1)
        times[rank], times[size + rank] = self._sent.computing, self._sent.data
        if rank == 0:
            times[-1] = self._sent.whole
        return times

    def update(self, times: Sequence[int]) -> None:
        """Report new and former stragglers; `times` is the sum of the last `own_times`."""
        if self._sent is None:
            return
        sent, self._sent = self._sent, None
        self._steps += sent.steps
        self._times = [a + b for a, b in zip(self._times, times, strict=True)]
        if self._steps >= BLOCK_STEPS and self._times[-1] * UNIT_S >= self._block_s:
            self._compare(sent.step)
            self._begin_block()

    def _begin_block(self) -> None:
        self._steps, self._times = 0, [0] * (len(KINDS) * self._world.size + 1)

    def _compare(self, at: int) -> None:
        means = [time * UNIT_S / self._steps for time in self._times]
        step_s, size = means[-1], self._world.size
        slow: dict[tuple[int, str], tuple[float, float]] = {}
        for number, what in enumerate(KINDS):
            times = means[number * size : (number + 1) * size]
            ordered = sorted(times)
            for rank, seconds in enumerate(times):
                others = median_without(ordered, seconds)
                if seconds > self._ratio * others and seconds - others > MIN_SHARE * step_s:
                    slow[rank, what] = seconds, others
        self._slow.append(set(slow))

        def event(kind: str, key: tuple[int, str], **facts: float) -> None:
            rank, what = key
            named = {"rank": rank, "host": self._hosts[rank], "what": what}
            self._callbacks.event(kind, {**named, **facts, "at": at})

        for key, (seconds, others) in slow.items():
            if key not in self._reported and self._count(key) >= SLOW_BLOCKS:
                self._reported.add(key)
                event("straggler", key, seconds=seconds, median_seconds=others)
        for key in sorted(k for k in self._reported if self._count(k) <= BLOCKS - SLOW_BLOCKS):
            self._reported.remove(key)
            event("straggler_gone", key)

    def _count(self, key: tuple[int, str]) -> int:
        return sum(key in block for block in self._slow)


def median_without(ordered: Sequence[float], value: float) -> float:
    """The median of `ordered` without one `value`, which it contains."""
    at, count = bisect_left(ordered, value), len(ordered) - 1

    def without(number: int) -> float:
        return ordered[number if number < at else number + 1]

    return (without((count - 1) // 2) + without(count // 2)) / 2
