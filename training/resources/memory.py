"""Memory of this process and of its container: limits, use, peaks, and giving back the unused."""

from __future__ import annotations

import ctypes
import gc
import re
import resource
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil

from gearshift.training.callbacks.base import Callback, Step
from gearshift.training.train_plan import TrainPlan

if TYPE_CHECKING:
    import torch

    from gearshift.engines.base import World


MOUNT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
VMSTAT = Path("/proc/vmstat")
_MEMORY = {"memory.max": "memory.current", "memory.limit_in_bytes": "memory.usage_in_bytes"}
# Version 1 writes "no limit" as the largest number of whole pages.
_UNLIMITED = 1 << 60
_KILLS = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)
# Counts of memory.stat that the kernel takes back before it kills a process.
_DROPPABLE = re.compile(
    r"^(?:total_(?:in)?active_file|(?:in)?active_file|slab_reclaimable) (\d+)$", re.M
)


class Share(NamedTuple):
    """A limit and the use that counts against it, in bytes; the tightest is the least."""

    limit: int
    used: int


def container_memory(mount: Path = MOUNT) -> Share | None:
    """The tightest memory limit on this process, and the use of it; None: no limit.

    File pages that can be dropped are not counted as used, as in the kernel's MemAvailable.
    Source: Linux, Documentation/admin-guide/cgroup-v1/memory.rst and cgroup-v2.rst.
    """
    return _tightest(mount, _MEMORY)


def container_swap() -> Share | None:
    """The same of swap; None: no limit, or control groups of version 1."""
    return _tightest(MOUNT, {"memory.swap.max": "memory.swap.current"})


def oom_kills() -> int | None:
    """How many processes the kernel has killed because memory ran out; None: it does not tell.

    Those of this process's group; of the whole machine if that group does not count them. The
    kernel counts a kill before its victim ends.
    """
    files = []
    for group in _groups(MOUNT):
        files += [group / "memory.events", group / "memory.oom_control"]
    for file in (*files, VMSTAT):
        match = _KILLS.search(_text(file))
        if match is not None:
            return int(match[1])
    return None


def _groups(mount: Path) -> Iterator[Path]:
    """The folder of each memory group of this process, inner first; in a container, the mount."""
    for line in _text(MEMBERSHIP).splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root = mount  # version 2
        elif "memory" in controllers.split(","):
            root = mount / "memory"
        else:
            continue
        inside = PurePosixPath(path.lstrip("/"))
        for part in (inside, *inside.parents):
            yield root / part


def _tightest(mount: Path, files: Mapping[str, str]) -> Share | None:
    """The least limit in `files`, with that of its use; of those that exist and are not "max"."""
    shares = []
    for group in _groups(mount):
        dropped = 0
        if files is _MEMORY:
            stat = _text(group / "memory.stat")
            # Version 1 counts a group alone, and with "total_" those below it, too.
            dropped = sum(map(int, _DROPPABLE.findall(stat[max(stat.find("total_"), 0) :])))
        for limit_file, use_file in files.items():
            with suppress(ValueError):
                limit = int(_text(group / limit_file))
                used = int(_text(group / use_file))
                if 0 < limit < _UNLIMITED:
                    shares.append(Share(limit, max(0, used - dropped)))
    return min(shares, default=None)


def _text(file: Path) -> str:
    """The content of `file`; empty if it cannot be read, as on other systems than Linux."""
    with suppress(OSError):
        return file.read_text()
    return ""


# getrusage counts in KiB on Linux and in bytes on macOS.
_MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024
_STATUS = Path("/proc/self/status")
_VM_HWM = re.compile(r"^VmHWM:\s*(\d+) kB", re.MULTILINE)


def host_bytes() -> int:
    """Resident memory of this process, without its loader workers."""
    return psutil.Process().memory_info().rss


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
        known = {name: count for name, count in local.items() if count is not None}
        counts = torch.tensor([*known.values()], device=world.device)
        largest = world.maximum(counts).tolist()
        return local | dict(zip(known, largest, strict=True))


@dataclass
class CacheClearing(Callback):
    """Empties the device's cache after every so many micro-batches of this rank.

    The allocator must then ask the driver for memory again, for which the device waits: this trades
    time for memory that other programs may use.
    """

    every: int
    device: torch.device

    def start(self, train_plan: TrainPlan) -> None:
        self._accumulation = train_plan.accumulation

    def step(self, step: Step) -> None:
        """Empty the cache if it is due in the micro-batches of this step."""
        if step.step * self._accumulation % self.every < self._accumulation:
            empty_cache(self.device)
