"""Stragglers: ranks that keep all others waiting, found by their own times and named with host."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch.nn import Module

    from engines.base import Engine
    from training.callbacks.base import StepMetrics
    from training.callbacks.callback_list import CallbackList
    from training.step_timer import StepTimer

BLOCK_S, BLOCK_STEPS = 2.0, 4
"""Least seconds and steps of training that are compared as one block, which averages out hiccups."""
BLOCKS, SLOW_BLOCKS = 5, 4
"""A rank is reported if it is slow in SLOW_BLOCKS of the last BLOCKS."""
MIN_SHARE = 0.1
"""Of a step: a rank counts as slow only if it takes longer than others by more than this."""
KINDS = ("step", "data")
"""Computing its own share of a step; waiting for its batches."""
UNIT_S = 1e-9
"""Times are integers in this unit, so that sums are exact."""


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
        self._world, self._step, self._is_first = engine.world, step, True
        if engine.gathers_weights:
            timer.time_modules(module)
        name = socket.gethostname().encode()
        names = [self._world.broadcast(name, rank) for rank in range(self._world.size)]
        self._hosts = [name.decode(errors="replace") for name in names]
        self._pending: list[int] = []
        self._sent_steps = self._steps = 0
        """In the times on their way, and in the block."""
        self._times = np.zeros(len(KINDS) * self._world.size + 1)
        """Of the block: computing [rank], data [rank], and whole steps by the clock of rank 0."""
        self._slow: deque[set[tuple[int, str]]] = deque(maxlen=BLOCKS)
        self._reported: set[tuple[int, str]] = set()

    def note(self, metrics: StepMetrics) -> None:
        """Take the times of this rank since the last logged step."""
        steps, self._step = metrics.step - self._step, metrics.step
        if not self._is_first:  # it compiles, allocates, waits for the first batch
            seconds = (self._timer.computing_s or 0.0, metrics.data_time_s, metrics.step_time_s)
            self._pending = [steps, *(round(value * steps / UNIT_S) for value in seconds)]
        self._is_first = False

    def own_times(self) -> Sequence[int]:
        """The times to sum over ranks before the next step, in UNIT_S; empty: no step was logged.

        A block ends at the same step on all ranks, by the clock of rank 0.
        """
        if not self._pending:
            return []
        (self._sent_steps, computing, data, whole), self._pending = self._pending, []
        rank, size = self._world.rank, self._world.size
        times = [0] * len(self._times)
        times[rank], times[size + rank] = computing, data
        times[-1] = 0 if rank else whole
        return times

    def update(self, times: Sequence[int]) -> None:
        """Report new and former stragglers; `times` is the sum of the last `own_times`."""
        if not times:
            return
        self._steps += self._sent_steps
        self._times += np.array(times) * UNIT_S
        if self._steps >= BLOCK_STEPS and self._times[-1] >= self._block_s:
            self._compare(self._times / self._steps)
            self._steps, self._times = 0, np.zeros_like(self._times)

    def _compare(self, means: np.ndarray) -> None:
        size, slow = self._world.size, {}
        for number, what in enumerate(KINDS):
            times = means[number * size : (number + 1) * size]
            for rank, seconds in enumerate(times):
                others = float(np.median(np.delete(times, rank)))
                if seconds > max(self._ratio * others, others + MIN_SHARE * means[-1]):
                    slow[rank, what] = {"seconds": float(seconds), "median_seconds": others}
        self._slow.append(set(slow))
        for key in sorted(self._reported | set(slow)):
            count = sum(key in block for block in self._slow)
            rank, what = key
            facts = {"rank": rank, "host": self._hosts[rank], "what": what, "at": self._step}
            if key not in self._reported and key in slow and count >= SLOW_BLOCKS:
                self._reported.add(key)
                self._callbacks.event("straggler", {**facts, **slow[key]})
            elif key in self._reported and count <= BLOCKS - SLOW_BLOCKS:
                self._reported.remove(key)
                self._callbacks.event("straggler_gone", facts)
