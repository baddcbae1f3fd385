"""Stragglers: ranks that keep all others waiting, found by their own times and named with host."""

from __future__ import annotations

import socket
from collections import defaultdict, deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from engines.base import World
    from training.callbacks.base import StepMetrics
    from training.callbacks.callback_list import CallbackList

BLOCK_S, BLOCK_STEPS = 2.0, 4
"""Least seconds and steps of training that are compared as one block, which averages out hiccups."""
BLOCKS, SLOW_BLOCKS = 5, 4
"""A rank is reported if it is slow in SLOW_BLOCKS of the last BLOCKS."""
MIN_SHARE = 0.1
"""Of a step: a rank counts as slow only if it takes longer than others by more than this."""
KINDS = ("step", "data")
"""Computing its own forward passes; waiting for its batches."""
UNIT_S = 1e-9
"""Times are integers in this unit, so that sums are exact."""


class Stragglers:
    """Compares the times that each rank spends by itself, at logged steps; reports a rank once.

    Steps take equally long on all ranks, no matter which is slow, and a backward pass waits for the
    slowest: so each rank measures its forward passes, where they gather no weights, and the wait for
    its batches. The sums travel with the agreement before the next step; all ranks see the same.
    """

    def __init__(
        self, ratio: float, world: World, callbacks: CallbackList, step: int, block_s: float = BLOCK_S
    ):
        """Measure from the step after `step` on. `ratio` to others' times counts as slow. Collective."""
        self._ratio, self._callbacks, self._block_s = ratio, callbacks, block_s
        self._world, self._step, self._is_first = world, step, True
        host = socket.gethostname().encode()
        self._hosts = [world.broadcast(host, rank).decode() for rank in range(world.size)]
        self._pending: list[int] = []
        # Of the block by kind and rank; in the last row steps, and seconds by the clock of rank 0.
        self._times = np.zeros((len(KINDS) + 1, world.size))
        self._slow: dict[tuple[int, str], deque[bool]] = defaultdict(lambda: deque(maxlen=BLOCKS))

    def note(self, metrics: StepMetrics, computing_s: float | None) -> None:
        """Take the times of this rank since the last logged step."""
        steps, self._step = metrics.step - self._step, metrics.step
        if not self._is_first:  # it compiles, allocates, waits for the first batch
            times, rank = np.zeros_like(self._times), self._world.rank
            times[:2, rank] = computing_s or 0.0, metrics.data_time_s
            times[2, :2] = (UNIT_S, metrics.step_time_s) if rank == 0 else 0
            self._pending = [round(time * steps / UNIT_S) for time in times.flat]
        self._is_first = False

    def own_times(self) -> Sequence[int]:
        """The times to sum over ranks before the next step, in UNIT_S; empty: no step was logged."""
        times, self._pending = self._pending, []
        return times

    def update(self, times: Sequence[int]) -> None:
        """Report new stragglers; `times` is the sum of the last `own_times`."""
        if not times:
            return
        self._times += np.reshape(times, self._times.shape) * UNIT_S
        steps, seconds = self._times[2, 0] / UNIT_S, self._times[2, 1]
        if steps >= BLOCK_STEPS and seconds >= self._block_s:  # at the same step on all ranks
            self._compare(self._times[:2] / steps, MIN_SHARE * seconds / steps)
            self._times[:] = 0

    def _compare(self, means: np.ndarray, least: float) -> None:
        for what, times in zip(KINDS, means, strict=True):
            for rank, seconds in enumerate(times.tolist()):
                others = float(np.median(np.delete(times, rank)))
                slow = self._slow[rank, what]
                was = sum(slow) >= SLOW_BLOCKS
                slow.append(seconds > max(self._ratio * others, others + least))
                if sum(slow) >= SLOW_BLOCKS and not was:
                    facts = {"rank": rank, "host": self._hosts[rank], "what": what, "at": self._step}
                    facts |= {"seconds": seconds, "median_seconds": others}
                    self._callbacks.event("straggler", facts)
