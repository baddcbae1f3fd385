"""Gives the device's cache of free memory back, every so many micro-batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from training.callbacks.base import Action, Callback, Step, TrainPlan
from training.resources import memory

if TYPE_CHECKING:
    import torch


class CacheClearing(Callback):
    """Clears after the step in which so many micro-batches of this rank have come together.

    The allocator must then ask the driver for memory again, for which the device waits: it trades
    time for what other programs may use.
    """

    def __init__(self, every: int | None, device: torch.device) -> None:
        """`every`: micro-batches of a rank; None: never."""
        self._every = every
        self._device = device
        self._accumulation = 1
        self._since = 0
        self.times = 0
        """How often it has cleared."""

    def start(self, train_plan: TrainPlan) -> None:
        """Learn how many micro-batches a step has."""
        self._accumulation = train_plan.accumulation

    def step(self, step: Step) -> Action:
        """Count the micro-batches of a step; clear where it is time."""
        if self._every is None:
            return Action.NOTHING
        self._since += self._accumulation
        if self._since >= self._every:
            self._since %= self._every
            self.times += 1
            memory.empty_cache(self._device)
        return Action.NOTHING
