"""A copy of a rank's shard in host memory, in a buffer that is reused by later saves."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import psutil
import torch

from training.checkpoint.tensor_file import Interval
from training.resources import cgroup

if TYPE_CHECKING:
    from torch import Tensor

    from engines.base import World

_ALIGNMENT = 64
# Stays free for training, which continues during the write.
_SPARE_BYTES = 512 * 2**20


class HostCopy:
    """Host memory for copies of intervals, pinned for CUDA devices.

    It grows to the largest copy so far and is kept: a second copy needs no new pages.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._buffer: Tensor | None = None

    def take(self, intervals: Sequence[Interval]) -> list[Interval] | None:
        """A copy of `intervals` in their dtype of the file; None: a rank lacks the memory.

        Collective. Valid until the next copy.
        """
        world, needed = self._world, sum(_aligned(interval.bytes) for interval in intervals)
        is_held = self._buffer is not None and self._buffer.numel() >= needed
        # Ranks of one machine share its memory, and all check before any of them allocates.
        largest = int(world.maximum(torch.tensor([0 if is_held else needed]))) * world.local_size
        if world.agree(int(largest > 0 and largest > available_bytes())):
            return None
        if not is_held:
            self._buffer = None  # first: both together may be too much
            with suppress(OSError):
                self._buffer = world.host_memory(needed)
        if world.agree(int(self._buffer is None)):
            self._buffer = None
            return None
        assert self._buffer is not None
        copied, end = [], 0
        for interval in intervals:
            begin, end = end, end + _aligned(interval.bytes)
            target = self._buffer[begin : begin + interval.bytes].view(interval.dtype)
            target.copy_(interval.data, non_blocking=world.device.type == "cuda")
            copied.append(replace(interval, data=target))
        if world.device.type == "cuda":
            torch.cuda.current_stream(world.device).synchronize()
        return copied


def available_bytes() -> int:
    """Memory that this process may still allocate, minus a reserve; may be negative."""
    free = psutil.virtual_memory().available
    share = cgroup.memory()
    if share is not None:
        free = min(free, share.limit - share.used)
    return free - _SPARE_BYTES


def _aligned(count: int) -> int:
    return -(-count // _ALIGNMENT) * _ALIGNMENT
