"""A clock for every contender: it ticks when PyTorch's optimizer has stepped."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook


class StepClock:
    """Record the time after every optimizer step of this process, in any framework.

    On a GPU the host is ahead of the device, so the device is waited for at the two ends of the
    measured interval and nowhere else. `calls` is how often the optimizer is called in one update.
    """

    def __init__(self, warmup: int, steps: int, device: str, calls: int = 1) -> None:
        self.measured = steps - warmup
        self.first = warmup * calls
        self.last = steps * calls
        self.device = device
        self.ticks = 0
        self.begin = self.end = float("nan")

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

    def _tick(self, *_: Any) -> None:
        self.ticks += 1
        if self.ticks == self.first:
            self.begin = self._now()
        elif self.ticks == self.last:
            self.end = self._now()

    def _now(self) -> float:
        if self.device != "cpu":
            torch.get_device_module(self.device).synchronize()
        return time.perf_counter()

    @property
    def seconds_per_step(self) -> float:
        """Mean seconds per step after the warm-up; raises RuntimeError if steps are missing."""
        if self.ticks != self.last:
            raise RuntimeError(f"the optimizer was called {self.ticks} times, not {self.last}")
        return (self.end - self.begin) / self.measured
