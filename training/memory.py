"""The memory this process takes: on the host and on its device, now and at its highest."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import sys
from functools import lru_cache
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    import torch

# getrusage counts in KiB on Linux and in bytes on macOS.
_MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024


def host_bytes() -> int:
    """Resident memory of this process; its loader workers are not counted."""
    return _process(os.getpid()).memory_info().rss


def device_bytes(device: torch.device) -> int | None:
    """The most bytes that tensors on `device` have taken at once so far; None on a CPU.

    The peak and not the present use: between two steps the activations are gone. On mps, which
    keeps no peak, what its driver holds now.
    """
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "xpu":
        return torch.xpu.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    return None


def peaks(device: torch.device) -> dict[str, int | None]:
    """The most bytes this process has taken at once: {"device", "host"}; device None on a CPU."""
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_BYTES
    return {"device": device_bytes(device), "host": highest}


def relieve(device: torch.device) -> None:
    """Give back what nobody uses: unreachable objects, and what the allocators keep in reserve."""
    import torch

    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "xpu":
        torch.xpu.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
    # glibc keeps freed memory for itself: of 1.7 GiB in small blocks, collecting returned 1 MiB
    # to the system and this call the rest. Other C libraries have no such function.
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


@lru_cache(maxsize=1)
def _process(pid: int) -> psutil.Process:
    """Kept, because to find a process costs more than to read it; anew after a fork."""
    return psutil.Process(pid)
