"""Stragglers: ranks that keep all others waiting, found by their own times and named with host."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from gearshift.engines.base import World
    from gearshift.training.callbacks.base import CallbackList

BLOCK_S = 2.0
BLOCK_STEPS = 4
"""Least seconds and steps that are compared as one block, which averages out hiccups."""
SLOW_BLOCKS = 4
"""A rank is reported if it is slow in so many blocks in a row."""


class Stragglers:
    """Compares the times that each rank spends by itself, at logged steps; reports a rank once.

    Steps take equally long on all ranks, no matter which is slow, and a backward pass waits for the
    slowest: so each rank measures its forward passes, where they gather no weights, and the wait
    for its batches. A rank is slow if it takes longer than others by a tenth of a step. Collective.
    """

    def __init__(self, ratio: float, world: World, callbacks: CallbackList):
        """`ratio` to others' times counts as slow."""
        self._ratio = ratio
        self._world = world
        self._callbacks = callbacks
        self._step: int | None = None
        # Of the block: its steps, and by rank their seconds of both kinds, and in all.
        self._steps = 0
        self._seconds = np.zeros((3, world.size))
        self._slow = np.zeros((2, world.size), int)  # Blocks in a row, of both kinds by rank

    def compare(self, step: int, times: np.ndarray, gathers_weights: bool = False) -> None:
        """Add the `times` of all ranks since the last logged step, and report new stragglers.

        `times`: `RunMetrics.rank_times`. With `gathers_weights` forward passes wait for other
        ranks: then theirs do not count.
        """
        before = self._step
        self._step = step
        if before is None:  # the first one compiles, allocates, waits for its first batch
            return
        self._seconds += times * (step - before)
        if gathers_weights:
            self._seconds[0] = 0
        self._steps += step - before
        block_s = self._seconds[2, 0]  # all ranks compare at the same step
        if self._steps < BLOCK_STEPS or block_s < BLOCK_S:
            return

        seconds = self._seconds[:2]
        others = np.zeros_like(seconds)
        for rank in range(self._world.size):
            others[:, rank] = np.median(np.delete(seconds, rank, 1), 1)
        is_slow = seconds > np.maximum(self._ratio * others, others + block_s / 10)
        self._slow = np.where(is_slow, self._slow + 1, 0)
        for kind, rank in np.argwhere(self._slow == SLOW_BLOCKS).tolist():
            host = self._world.broadcast(socket.gethostname().encode(), rank).decode()
            self._callbacks.event(
                "straggler",
                {
                    "rank": rank,
                    "host": host,
                    "what": ("step", "data")[kind],
                    "at": step,
                    "seconds": float(seconds[kind, rank]) / self._steps,
                    "median_seconds": float(others[kind, rank]) / self._steps,
                },
            )
        self._steps = 0
        self._seconds = np.zeros_like(self._seconds)
