"""Memory of the host that is pinned for copies to and from a CUDA device."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor


def allocate(size: int, device: torch.device) -> Tensor:
    """`size` bytes, pinned for a CUDA `device`; pages are allocated on first write.

    Not the pinned memory of torch, which rounds up to a power of two. Raises OSError if the system
    refuses the memory.
    """
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


def pinned(tensor: Tensor, device: torch.device) -> Tensor:
    """A copy of `tensor` in memory that is pinned for `device`."""
    buffer = allocate(tensor.nbytes, device)
    return buffer.view(tensor.dtype).view(tensor.shape).copy_(tensor.detach())


@contextmanager
def exact(device: torch.device) -> Iterator[None]:
    """Inside, tensors that are pinned for a CUDA `device` take no more than their size."""
    tensors: Any = Tensor
    original = tensors.pin_memory
    if device.type == "cuda":
        tensors.pin_memory = lambda tensor: pinned(tensor, device)
    try:
        yield
    finally:
        tensors.pin_memory = original


class _Pages(mmap.mmap):
    """Memory that can be pinned for a device, until just before it is unmapped."""

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
