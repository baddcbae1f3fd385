"""One reading of the machine: what of it is in use, in percent of what this process may use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from training.resources import cgroup
from training.resources.cpu import CpuUse
from training.resources.gpu import driver_memory
from training.resources.memory import host_bytes

if TYPE_CHECKING:
    import torch

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


class Reader:
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
