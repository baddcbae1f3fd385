"""Readings of the machine, taken at intervals in a thread of their own, and the highest of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from training.resources import cgroup
from training.resources.cpu import CpuUse
from training.resources.memory import driver_memory, host_bytes

if TYPE_CHECKING:
    import torch


class ResourceMonitor:
    """Calls `read` every `every_s` seconds off the training thread, and keeps the newest answer."""

    def __init__(self, read: Callable[[], Reading], every_s: float) -> None:
        self._read = read
        self._every_s = every_s
        self._new: Reading | None = None
        self._highest: dict[str, float] = {}
        self.newest: Mapping[str, float] = {}
        """The last reading in percent, by resource; nothing before the first."""
        self._reading = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def highest(self) -> Mapping[str, float]:
        """The most of each resource that any reading found in use, in percent."""
        return dict(self._highest)

    def read(self) -> Reading:
        """A reading taken now, in the thread that asks."""
        with self._reading:
            reading = self._read()
            self.newest = reading.percents()
            for name, percent in self.newest.items():
                self._highest[name] = max(percent, self._highest.get(name, 0.0))
        return reading

    def start(self) -> None:
        """Begin to read; the first reading comes after one interval."""
        # A daemon: a run that fails must not wait for its monitor.
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)
        self._thread.start()

    def take(self) -> Reading | None:
        """The newest reading of the thread, once; None where there was none since the last call."""
        reading, self._new = self._new, None
        return reading

    def stop(self) -> None:
        """End the thread, if there is one, and wait for a reading that is under way."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self._every_s):
            self._new = self.read()


RESOURCES = ("ram", "swap", "gpu", "cpu", "disk")


@dataclass(frozen=True)
class Reading:
    """Use of the machine in percent, None where there is nothing to use, and our own share."""

    ram: float
    """Of main memory; inside a container, of its limit."""
    swap: float | None
    gpu: float | None
    """Of device memory, everybody's use; what our allocator holds in reserve counts as free."""
    host_bytes: int
    """Resident memory of this process."""
    gpu_reserved_bytes: int | None
    """Device memory that our allocator holds, in use or not."""
    gpu_driver_bytes: int | None
    """Device memory in use as the driver counts it, over all processes."""
    cpu: float | None = None
    """Of the processor time this process may use, since the reading before; None: the first."""
    disk: float | None = None
    """Of the file system that holds the run folder."""

    def facts(self) -> dict[str, float | int | None]:
        """The numbers by name, for events.jsonl."""
        return asdict(self)

    def percents(self) -> Mapping[str, float]:
        """What there is to use, by its name in RESOURCES."""
        values = {name: getattr(self, name) for name in RESOURCES}
        return {name: value for name, value in values.items() if value is not None}


class ResourceReader:
    """Reads this machine, a device and the file system of a folder."""

    def __init__(self, device: torch.device, folder: Path) -> None:
        self._device = device
        self._folder = folder
        self._cpu = CpuUse()

    def read(self) -> Reading:
        """A reading taken now; some tenths of a millisecond of processor time."""
        device = driver_memory(self._device)
        return Reading(
            ram=_ram(),
            swap=_swap(),
            gpu=None if device is None else device.percent,
            host_bytes=host_bytes(),
            gpu_reserved_bytes=None if device is None else device.reserved,
            gpu_driver_bytes=None if device is None else device.used,
            cpu=self._cpu.percent(),
            disk=_disk(self._folder),
        )


def _ram() -> float:
    machine = psutil.virtual_memory()
    share = cgroup.memory()
    return share.percent if share is not None and share.limit < machine.total else machine.percent


def _swap() -> float | None:
    machine = psutil.swap_memory()
    share = cgroup.swap()
    if share is not None and share.limit < machine.total:
        return share.percent
    return machine.percent if machine.total else None


def _disk(folder: Path) -> float | None:
    """As `df` tells it: of what may be used without being root. None: the folder has gone."""
    try:
        return psutil.disk_usage(str(folder)).percent
    except OSError:
        return None


_NEAR = 5.0
"""Percent below a limit from which on it is worth a line."""


@dataclass(frozen=True)
class Near:
    """A resource that came near to its limit, or over it."""

    name: str
    highest: float
    limit: float

    @property
    def is_over(self) -> bool:
        """Whether it was exceeded."""
        return self.highest > self.limit


class ResourceUsage:
    """What a monitor read, in percent by resource; nothing where there is no monitor."""

    def __init__(
        self,
        monitor: ResourceMonitor | None = None,
        limits: Mapping[str, float | None] | None = None,
    ) -> None:
        self._monitor = monitor
        self._limits = limits or {}

    @property
    def newest(self) -> Mapping[str, float]:
        """The last reading."""
        return self._monitor.newest if self._monitor else {}

    @property
    def highest(self) -> Mapping[str, float]:
        """The most that any reading found."""
        return self._monitor.highest if self._monitor else {}

    def near_limits(self) -> list[Near]:
        """What came within five percent of its limit."""
        found = [(name, value, self._limits.get(name)) for name, value in self.highest.items()]
        return [
            Near(name, value, limit)
            for name, value, limit in found
            if limit is not None and value > limit - _NEAR
        ]


def named(percents: Mapping[str, float]) -> dict[str, float]:
    """Percents by the names they have in files: `ram_percent`."""
    return {f"{name}_percent": round(value, 1) for name, value in percents.items()}
