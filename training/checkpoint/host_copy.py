"""A copy of a rank's share in host memory, in a buffer that is kept from save to save."""

from __future__ import annotations

import mmap
import weakref
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import psutil
import torch

from training.checkpoint.tensor_file import Interval
from training.resources import cgroup

if TYPE_CHECKING:
    from torch import Tensor

_ALIGNMENT = 64
# What stays free for the training that goes on beside the copy.
_SPARE_BYTES = 512 * 2**20


class HostCopy:
    """Host memory for copies of intervals, pinned where they come from a CUDA device.

    It grows to the largest copy so far and is kept: the pages of a second copy are there already.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._buffer: Tensor | None = None

    def missing_bytes(self, intervals: Sequence[Interval]) -> int:
        """Host memory that a copy of `intervals` would take beyond what is held already."""
        needed = _needed(intervals)
        return 0 if self._held() >= needed else needed

    def reserve(self, intervals: Sequence[Interval]) -> bool:
        """Hold the memory that a copy of `intervals` takes, and tell whether the system gives it.

        Ends what an earlier copy holds.
        """
        needed = _needed(intervals)
        if self._held() < needed:
            self.release()  # before the new one: both might be too much
            try:
                self._buffer = _allocate(needed, self._device)
            except OSError:
                return False
        return True

    def release(self) -> None:
        """Give the memory back."""
        self._buffer = None

    def take(self, intervals: Sequence[Interval]) -> list[Interval]:
        """`intervals` with their numbers copied, as what they are written as; they are reserved.

        The copy holds until the next one.
        """
        assert self._buffer is not None
        is_cuda = self._device.type == "cuda"
        copied, end = [], 0
        for interval in intervals:
            begin, end = end, end + _aligned(interval.bytes)
            target = self._buffer[begin : begin + interval.bytes].view(interval.dtype)
            target.copy_(interval.data, non_blocking=is_cuda)
            copied.append(replace(interval, data=target))
        if is_cuda:
            torch.cuda.current_stream(self._device).synchronize()
        return copied

    def _held(self) -> int:
        return -1 if self._buffer is None else self._buffer.numel()


def available_bytes() -> int:
    """Memory that this process may still take, with some left for others; may be negative."""
    free = psutil.virtual_memory().available
    share = cgroup.memory()
    if share is not None:
        free = min(free, share.limit - share.used)
    return free - _SPARE_BYTES


def _needed(intervals: Sequence[Interval]) -> int:
    return sum(_aligned(interval.bytes) for interval in intervals)


def _aligned(count: int) -> int:
    return -(-count // _ALIGNMENT) * _ALIGNMENT


def _allocate(size: int, device: torch.device) -> Tensor:
    """`size` bytes, whose pages come when they are written to."""
    if size == 0:
        return torch.empty(0, dtype=torch.uint8)
    # Not torch.empty, which in deterministic mode fills them. Large pages would be slower: 7 s
    # where small ones took 0.6 s for 1.5 GB, in a virtual machine on Linux 6.18.
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_DONTFORK"):
        # A loader worker that is forked would keep each page until it was copied once more.
        pages.madvise(mmap.MADV_DONTFORK)
    buffer = torch.frombuffer(pages, dtype=torch.uint8)
    if device.type == "cuda":
        _pin(buffer, pages)
    return buffer


def _pin(buffer: Tensor, pages: mmap.mmap) -> None:
    """Let the device write into `buffer` by itself; where it cannot be, copies are only slower.

    Not torch's own pinned memory, which takes the next power of two.
    """
    runtime = torch.cuda.cudart()
    address = buffer.data_ptr()
    if int(runtime.cudaHostRegister(address, buffer.numel(), 0)) == 0:
        weakref.finalize(pages, runtime.cudaHostUnregister, address)
