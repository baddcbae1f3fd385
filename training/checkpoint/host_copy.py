"""A copy of a rank's shard in host memory, in a buffer that is reused by later saves."""

from __future__ import annotations

from collections.abc import Sequence
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

    def missing_bytes(self, intervals: Sequence[Interval]) -> int:
        """Host memory that a copy of `intervals` needs beyond the memory held."""
        needed = _needed(intervals)
        return 0 if self._held() >= needed else needed

    def reserve(self, intervals: Sequence[Interval]) -> bool:
        """Allocate memory for a copy of `intervals`; False if the system refuses it.

        Invalidates an earlier copy.
        """
        needed = _needed(intervals)
        if self._held() < needed:
            self.release()  # first: both together may be too much
            try:
                self._buffer = self._world.host_memory(needed)
            except OSError:
                return False
        return True

    def release(self) -> None:
        """Free the memory."""
        self._buffer = None

    def take(self, intervals: Sequence[Interval]) -> list[Interval]:
        """Copy `intervals` into reserved memory, in their dtype of the file.

        Valid until the next copy.
        """
        assert self._buffer is not None
        device = self._world.device
        copied, end = [], 0
        for interval in intervals:
            begin, end = end, end + _aligned(interval.bytes)
            target = self._buffer[begin : begin + interval.bytes].view(interval.dtype)
            target.copy_(interval.data, non_blocking=device.type == "cuda")
            copied.append(replace(interval, data=target))
        if device.type == "cuda":
            torch.cuda.current_stream(device).synchronize()
        return copied

    def _held(self) -> int:
        return -1 if self._buffer is None else self._buffer.numel()


def available_bytes() -> int:
    """Memory that this process may still allocate, minus a reserve; may be negative."""
    free = psutil.virtual_memory().available
    share = cgroup.memory()
    if share is not None:
        free = min(free, share.limit - share.used)
    return free - _SPARE_BYTES


def _needed(intervals: Sequence[Interval]) -> int:
    return sum(_aligned(interval.bytes) for interval in intervals)


def _aligned(count: int) -> int:
    return -(-count // _ALIGNMENT) * _ALIGNMENT
