"""Memory of this process on host and device: use now, peaks, and giving back what is unused."""

from __future__ import annotations

import ctypes
import gc
import os
import re
import resource
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from gearshift.training.callbacks.base import Callback, Step
from gearshift.training.train_plan import TrainPlan

if TYPE_CHECKING:
    import torch

    from gearshift.engines.base import World

# getrusage counts in KiB on Linux and in bytes on macOS.
_MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024
_STATUS = Path("/proc/self/status")
_VM_HWM = re.compile(r"^VmHWM:\s*(\d+) kB", re.MULTILINE)


def host_bytes() -> int:
    """Resident memory of this process, without its loader workers."""
    return _process(os.getpid()).memory_info().rss


@cache
def _process(pid: int) -> psutil.Process:
    """Made once: to find when a process started takes longer than to read its memory."""
    return psutil.Process(pid)


def device_bytes(device: torch.device) -> int | None:
    """The peak of the bytes of tensors on `device`; None on a CPU.

    The peak and not the present use: between two steps the activations are freed. mps keeps no
    peak: what its driver holds now.
    """
    if device.type == "cpu":
        return None
    if device.type == "mps":
        return int(_runtime(device).driver_allocated_memory())
    return int(_runtime(device).max_memory_allocated(device))


def release_unused(device: torch.device) -> None:
    """Give back unused memory: unreachable objects, and what the allocators keep in reserve."""
    gc.collect()
    empty_cache(device)
    # glibc keeps freed memory for itself: of 1.7 GiB in small blocks, collecting returned 1 MiB
    # to the system and this call the rest. Other C libraries have no such function.
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def empty_cache(device: torch.device) -> None:
    """Give back the device memory that torch caches; a CPU has no such cache."""
    if device.type != "cpu":
        _runtime(device).empty_cache()


def synchronize(device: torch.device) -> None:
    """Wait until `device`, the current one of its kind, has finished all queued work."""
    _runtime(device).synchronize()


def _runtime(device: torch.device) -> Any:
    import torch

    return torch.get_device_module(device)


class PeakMemory:
    """Peak memory of a run; created before data and model, so that all later growth counts."""

    def __init__(self) -> None:
        self._before = host_bytes()

    def local(self, device: torch.device) -> dict[str, int | None]:
        """Peak bytes of this process, without its loader workers.

        "device": of tensors, None on a CPU; "host": resident memory; "host_growth": the same above
        the use at creation.
        """
        # Linux hands ru_maxrss on to the program that a process starts: run from one that holds
        # 400 MiB, `python -c pass` "took" 400 MiB. VmHWM starts at zero with each program.
        host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_BYTES
        with suppress(OSError):
            match = _VM_HWM.search(_STATUS.read_text(encoding="ascii", errors="replace"))
            if match is not None:
                host = int(match[1]) * 1024
        growth = max(0, host - self._before)
        return {
            "device": device_bytes(device),
            "host": host,
            "host_growth": growth,
        }

    def maximum(self, world: World) -> dict[str, int | None]:
        """The maximum of each number over ranks. Collective."""
        import torch

        local = self.local(world.device)
        known = [-1 if n is None else n for n in local.values()]
        counts = torch.tensor(known, device=world.device)
        largest = world.maximum(counts).tolist()
        return {name: None if n < 0 else n for name, n in zip(local, largest, strict=True)}


@dataclass
class CacheClearing(Callback):
    """Empties the device's cache after every so many micro-batches of this rank.

    The allocator must then ask the driver for memory again, for which the device waits: this trades
    time for memory that other programs may use.
    """

    every: int
    device: torch.device
    since: int = 0

    def start(self, train_plan: TrainPlan) -> None:
        self._accumulation = train_plan.accumulation

    def step(self, step: Step) -> None:
        """Count the micro-batches of a step; empty the cache if it is due."""
        self.since += self._accumulation
        if self.since >= self.every:
            self.since %= self.every
            empty_cache(self.device)
