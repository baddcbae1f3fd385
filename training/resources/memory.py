"""The memory this process takes: on the host and on its device, now and at its highest."""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import re
import resource
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from training.callbacks.base import Action, Callback, Step
from training.train_plan import TrainPlan

if TYPE_CHECKING:
    import torch

    from engines.base import World

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


def release_unused(device: torch.device) -> None:
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


@dataclass(frozen=True)
class DeviceMemory:
    """Bytes of one device."""

    used: int
    """By everybody."""
    total: int
    reserved: int
    """What our own allocator holds, in use or not."""
    allocated: int
    """What of it holds tensors."""

    @property
    def percent(self) -> float:
        """Use in percent; what our allocator holds in reserve counts as free."""
        return 100 * (self.used - (self.reserved - self.allocated)) / self.total


def driver_memory(device: torch.device) -> DeviceMemory | None:
    """What the driver says of `device` now; None where no driver counts for a device."""
    if device.type != "cuda":
        return None
    import torch

    used, total = _by_nvml(device) or _by_runtime(device)
    reserved, allocated = torch.cuda.memory_reserved(device), torch.cuda.memory_allocated(device)
    return DeviceMemory(used, total, reserved, allocated)


def _by_runtime(device: torch.device) -> tuple[int, int]:
    import torch

    free, total = torch.cuda.mem_get_info(device)
    return total - free, total


def _by_nvml(device: torch.device) -> tuple[int, int] | None:
    """Asked without a call into the runtime that training uses; None where NVML cannot say."""
    nvml = _nvml()
    if nvml is None:
        return None
    try:
        found = nvml.nvmlDeviceGetMemoryInfo(_handle(nvml, device))
    except nvml.NVMLError:  # such as on a slice of a GPU, which NVML knows under other names
        return None
    return found.used, found.total


@cache
def _nvml() -> Any:
    """The module pynvml, where it is installed and finds a driver."""
    import torch

    # On AMD, torch.cuda is ROCm, of which NVML knows nothing.
    if torch.version.cuda is None:
        return None
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return None
    return nvml


@cache
def _handle(nvml: Any, device: torch.device) -> Any:
    """NVML's name of a device; by its unique id, as CUDA_VISIBLE_DEVICES renumbers them."""
    import torch

    unique = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
    return nvml.nvmlDeviceGetHandleByUUID(unique)


class CacheClearing(Callback):
    """Clears after the step in which so many micro-batches of this rank have come together.

    The allocator must then ask the driver for memory again, for which the device waits: it trades
    time for what other programs may use.
    """

    def __init__(self, every: int | None, device: torch.device) -> None:
        """`every`: micro-batches of a rank; None: never."""
        self._every = every
        self._device = device
        self._accumulation = 1
        self._since = 0
        self.times = 0
        """How often it has cleared."""

    def start(self, train_plan: TrainPlan) -> None:
        """Learn how many micro-batches a step has."""
        self._accumulation = train_plan.accumulation

    def step(self, step: Step) -> Action:
        """Count the micro-batches of a step; clear where it is time."""
        if self._every is None:
            return Action.NOTHING
        self._since += self._accumulation
        if self._since >= self._every:
            self._since %= self._every
            self.times += 1
            empty_cache(self._device)
        return Action.NOTHING


_NOTHING = -1


class PeakMemory:
    """Made just before data and model are built: what is taken from then on is the run's own."""

    def __init__(self) -> None:
        self._before = host_bytes()

    def own(self, device: torch.device) -> dict[str, int | None]:
        """Bytes that this process took at most at once; its loader workers are not counted.

        "device": of tensors, None on a CPU; "host": resident memory; "host_growth": the same above
        what the process held when this was made.
        """
        taken = peaks(device)
        host = taken["host"] or 0
        return {**taken, "host_growth": max(0, host - self._before)}

    def agreed(self, world: World) -> dict[str, int | None]:
        """Of each number the largest of all ranks'. Collective."""
        import torch

        own = self.own(world.device)
        told = [_NOTHING if count is None else count for count in own.values()]
        largest = world.maximum(torch.tensor(told, dtype=torch.int64, device=world.device))
        return {
            name: None if count == _NOTHING else count
            for name, count in zip(own, largest.tolist(), strict=True)
        }
