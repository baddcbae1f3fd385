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


class Block:
    """The times of all ranks, summed over logged steps until hiccups average out."""

    def __init__(self, ranks: int, step: int | None = None):
        """After `step`; None: the first steps compile, allocate, fill caches and do not count."""
        self.steps = 0
        self.seconds = np.zeros((3, ranks))
        """By kind and rank, as `RunMetrics.rank_times`."""
        self._step = step

    def add(self, step: int, times: np.ndarray) -> bool:
        """Add `times`, seconds per step of all since the last call; whether the block is full."""
        before = self._step
        self._step = step
        if before is not None:
            self.steps += step - before
            self.seconds += times * (step - before)
        # All ranks log the same steps.
        return self.steps >= BLOCK_STEPS and bool(self.seconds[2, 0] >= BLOCK_S)


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
        self._block = Block(world.size)
        self._slow = np.zeros((2, world.size), int)  # Blocks in a row, of both kinds by rank

    def compare(self, step: int, times: np.ndarray, gathers_weights: bool = False) -> None:
        """Add the `times` of all ranks since the last logged step, and report new stragglers.

        `times`: `RunMetrics.rank_times`. With `gathers_weights` forward passes wait for other
        ranks: then theirs do not count.
        """
        block = self._block
        if not block.add(step, times):
            return
        self._block = Block(self._world.size, step)
        seconds = block.seconds[:2]
        if gathers_weights:
            seconds[0] = 0
        others = np.zeros_like(seconds)
        for rank in range(self._world.size):
            others[:, rank] = np.median(np.delete(seconds, rank, 1), 1)
        slack_s = block.seconds[2, 0] / 10
        is_slow = seconds > np.maximum(self._ratio * others, others + slack_s)
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
                    "seconds": float(seconds[kind, rank]) / block.steps,
                    "median_seconds": float(others[kind, rank]) / block.steps,
                },
            )
