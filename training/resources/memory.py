"""The memory this process takes: on the host and on its device, now and at its highest."""

from __future__ import annotations

import ctypes
import gc
import os
import re
import resource
import sys
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    import torch

# getrusage counts in KiB on Linux and in bytes on macOS.
_MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024
_STATUS = Path("/proc/self/status")
_HIGHEST = re.compile(r"^VmHWM:\s*(\d+) kB", re.MULTILINE)


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
    return {"device": device_bytes(device), "host": _highest()}


def relieve(device: torch.device) -> None:
    """Give back what nobody uses: unreachable objects, and what the allocators keep in reserve."""
    gc.collect()
    empty_cache(device)
    # glibc keeps freed memory for itself: of 1.7 GiB in small blocks, collecting returned 1 MiB
    # to the system and this call the rest. Other C libraries have no such function.
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def empty_cache(device: torch.device) -> None:
    """Give back the device memory that torch keeps for later; a CPU has no such cache."""
    import torch

    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "xpu":
        torch.xpu.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def synchronize(device: torch.device) -> None:
    """Wait until `device` has done all that it was told; a CPU is never behind."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "xpu":
        torch.xpu.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _highest() -> int:
    """The most resident memory of this process so far."""
    # Linux hands ru_maxrss on to the program that a process starts: run from one that holds
    # 400 MiB, `python -c pass` "took" 400 MiB. VmHWM begins anew with each program.
    with suppress(OSError):
        if found := _HIGHEST.search(_STATUS.read_text(encoding="ascii", errors="replace")):
            return int(found[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_BYTES


@lru_cache(maxsize=1)
def _process(pid: int) -> psutil.Process:
    """Kept, because to find a process costs more than to read it; anew after a fork."""
    return psutil.Process(pid)
