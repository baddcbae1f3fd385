"""A clock for every contender: it ticks when PyTorch's optimizer has stepped."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook


class StepClock:
    """Record the time after every step of this process, in any framework.

    On a GPU the host is ahead of the device, so the device is waited for at the two ends of the
    measured interval and nowhere else. DeepSpeed calls the optimizer once for each part of the
    parameters; a step begins with the same part as the first one. `after` is called after each
    step with its number, from 1.
    """

    def __init__(
        self,
        warmup: int,
        steps: int,
        device: str,
        after: Callable[[int], object] = lambda step: None,
    ) -> None:
        self.first = warmup
        self.last = steps
        self.device = device
        self.after = after
        self.ticks = 0
        self.begin = self.end = float("nan")
        self._part: tuple[int, ...] = ()

    def __enter__(self) -> StepClock:
        self._handle = register_optimizer_step_post_hook(self._tick)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._handle.remove()

    def _tick(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        parameters = (p for group in optimizer.param_groups for p in group["params"])
        part = (id(optimizer), *map(id, parameters))
        self._part = self._part or part
        if part != self._part:
            return
        self.ticks += 1
        if self.ticks == self.first:
            self.begin = self._now()
        elif self.ticks == self.last:
            self.end = self._now()
        self.after(self.ticks)

    def _now(self) -> float:
        if self.device != "cpu":
            torch.get_device_module(self.device).synchronize()
        return time.perf_counter()

    @property
    def seconds_per_step(self) -> float:
        """Mean seconds per step after the warm-up; raises RuntimeError if steps are missing."""
        if self.ticks != self.last:
            raise RuntimeError(f"the optimizer took {self.ticks} steps, not {self.last}")
        return (self.end - self.begin) / (self.last - self.first)
