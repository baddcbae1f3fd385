"""A copy of a rank's shard in host memory, in a buffer that is reused by later saves."""

from __future__ import annotations

import mmap
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

_ALIGNMENT = 64
# Stays free for training, which continues during the write.
_SPARE_BYTES = 512 * 2**20


class HostCopy:
    """Host memory for copies of intervals, pinned for CUDA devices.

    It grows to the largest copy so far and is kept: a second copy needs no new pages.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
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
                self._buffer = _allocate(needed, self._device)
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


def _allocate(size: int, device: torch.device) -> Tensor:
    """`size` bytes; pages are allocated on first write."""
    if size == 0:
        return torch.empty(0, dtype=torch.uint8)
    # Not torch.empty, which in deterministic mode fills them. Large pages would be slower: 7 s
    # where small ones took 0.6 s for 1.5 GB, in a virtual machine on Linux 6.18.
    pages = _Pages(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_DONTFORK"):
        # A forked loader worker would keep each page until it is copied once more.
        pages.madvise(mmap.MADV_DONTFORK)
    buffer = torch.frombuffer(pages, dtype=torch.uint8)
    if device.type == "cuda":
        pages.pin(buffer, device)
    return buffer


class _Pages(mmap.mmap):
    """Memory that can be pinned for a device, until just before it is unmapped.

    Not the pinned memory of torch, which rounds up to a power of two.
    """

    _address: int | None = None

    def pin(self, buffer: Tensor, device: torch.device) -> None:
        """Pin `buffer`, the tensor of these pages; if that fails, copies are only slower."""
        address = buffer.data_ptr()
        if int(torch.cuda.cudart().cudaHostRegister(address, buffer.numel(), 0)) == 0:
            self._address = address
            return
        # The error stays until a check finds it, which otherwise is that of the next kernel.
        with suppress(RuntimeError):
            torch.zeros(1, device=device)

    def __del__(self) -> None:
        # A weak reference would be too late: mmap unmaps before it calls them.
        if self._address is not None:
            torch.cuda.cudart().cudaHostUnregister(self._address)
