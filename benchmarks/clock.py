"""A clock for every contender: it ticks when PyTorch's optimizer has stepped."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
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
            self.begin = self.now()
        elif self.ticks == self.last:
            self.end = self.now()
        self.after(self.ticks)

    def now(self) -> float:
        """Seconds, once the device has ended its work."""
        if self.device != "cpu":
            torch.get_device_module(self.device).synchronize()
        return time.perf_counter()

    @property
    def seconds_per_step(self) -> float:
        """Mean seconds per step after the warm-up; raises RuntimeError if steps are missing."""
        if self.ticks != self.last:
            raise RuntimeError(f"the optimizer took {self.ticks} steps, not {self.last}")
        return (self.end - self.begin) / (self.last - self.first)


SETTLING = 2
"""The first steps of a turn, which are not measured: caches hold the data of the other program."""


class Turns:
    """Lets two programs that run side by side take steps in turn, by a token in two pipes.

    So a machine that other programs use, too, is as busy for both. To be called with the number of
    each step that the program has taken.
    """

    def __init__(self, pipes: tuple[Path, Path], clock: StepClock, warmup: int, steps: int) -> None:
        """`pipes` exist: of this program, and of the other. After `warmup` steps, turns of `steps`.

        The program whose pipe comes first by name has the first turn, once the other is ready.
        """
        own, other = pipes
        self._clock = clock
        self._warmup = warmup
        self._steps = steps + SETTLING
        self._is_first = own < other
        self._own = os.open(own, os.O_RDWR)
        self._other = os.open(other, os.O_RDWR)
        self._began = 0.0
        self.seconds: list[float] = []
        """Per step, of each turn."""

    def __call__(self, step: int) -> None:
        """Pass the token after the last step of a turn, and wait for it."""
        taken = step - self._warmup
        if taken < 0:
            return
        if taken % self._steps == SETTLING:
            self._began = self._clock.now()
        elif taken % self._steps == 0:
            if taken:
                seconds = self._clock.now() - self._began
                self.seconds.append(seconds / (self._steps - SETTLING))
            if taken or not self._is_first:
                self.end()
            os.read(self._own, 1)

    def end(self) -> None:
        """Pass the token."""
        os.write(self._other, b".")
