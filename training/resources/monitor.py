"""The resource monitor: reads use of CPU, RAM, swap, GPU and disk, and temperatures."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from training.logging.metrics import ResourceUsage
from training.resources import cgroup
from training.resources.cpu import CpuUse, cpu_celsius
from training.resources.memory import device_uses, host_bytes

if TYPE_CHECKING:
    import torch

    from training.resources.nvml import GpuState

RESOURCES = ("ram", "swap", "gpu", "cpu", "disk", "temperature")
"""What has a limit: in percent, or in degrees Celsius."""


@dataclass(frozen=True)
class MachineReading:
    """Use of the machine, in percent unless it says otherwise; None: no such resource."""

    ram: float
    """Of main memory; in a container, of its limit."""
    swap: float | None
    host_bytes: int
    """Resident memory of this process."""
    gpu: float | None = None
    """Of device memory, by other processes than this one: what limits.gpu limits."""
    gpu_reserved_bytes: int | None = None
    """Device memory that our allocator holds, in use or not."""
    gpu_driver_bytes: int | None = None
    """Device memory in use as the driver counts it, over all processes."""
    cpu: float | None = None
    """Of the CPU time this process may use, since the reading before; None: the first reading."""
    disk: float | None = None
    """Of the file system that holds the run folder."""
    gpu_all: float | None = None
    """Of device memory, by all processes; what our allocator holds in reserve counts as free."""
    temperature: float | None = None
    """Of the processor or the GPU, the hotter one, in degrees Celsius."""
    gpu_busy: float | None = None
    """Of the last moments, in which a kernel ran on the GPU."""

    def facts(self) -> dict[str, float | int | None]:
        """The numbers by name, for events.jsonl."""
        return asdict(self)

    def uses(self) -> Mapping[str, float]:
        """Use by resource, and of the GPU's time, for those that exist; `gpu` by all processes."""
        values = {name: getattr(self, name) for name in (*RESOURCES, "gpu_busy")}
        values["gpu"] = self.gpu_all
        return {name: value for name, value in values.items() if value is not None}


class ResourceReader:
    """Reads this machine, a device and the file system of a folder."""

    def __init__(self, device: torch.device, folder: Path) -> None:
        self._device, self._folder, self._cpu = device, folder, CpuUse()
        self._read_gpu: Callable[[], GpuState | None] | None = None

    def read(self) -> MachineReading:
        gpu = disk = None
        if self._device.type == "cuda":
            if self._read_gpu is None:
                import torch

                from training.resources import nvml

                uuid = torch.cuda.get_device_properties(self._device).uuid
                self._read_gpu = nvml.gpu_reader(f"GPU-{uuid}")
            gpu = self._read_gpu()
        with suppress(OSError):  # the folder is gone
            disk = psutil.disk_usage(str(self._folder)).percent  # as in `df`, for other than root
        celsius = [cpu_celsius(), gpu.celsius if gpu else None]
        return MachineReading(
            ram=_ram(),
            swap=_swap(),
            host_bytes=host_bytes(),
            cpu=self._cpu.percent(),
            disk=disk,
            temperature=max((value for value in celsius if value is not None), default=None),
            gpu_busy=gpu.busy_percent if gpu else None,
            **device_uses(self._device, gpu),
        )


class ResourceMonitor:
    """Calls `read` every `every_s` seconds in a thread, and keeps the newest reading."""

    def __init__(
        self, read: Callable[[], MachineReading], every_s: float, usage: ResourceUsage | None = None
    ) -> None:
        """Every reading is added to `usage`."""
        self._read, self._every_s, self._usage = read, every_s, usage or ResourceUsage()
        self._new: MachineReading | None = None
        self._reading = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def read(self) -> MachineReading:
        with self._reading:
            reading = self._read()
            self._usage.add(reading.uses())
        return reading

    def start(self) -> None:
        """Start the thread; the first reading comes after one interval."""
        # A daemon: a run that fails must not wait for its monitor.
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)
        self._thread.start()

    def take(self) -> MachineReading | None:
        """The newest reading of the thread, once; None if there is no new one."""
        reading, self._new = self._new, None
        return reading

    def stop(self) -> None:
        """End the thread, if there is one, and wait for the reading it takes."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self._every_s):
            self._new = self.read()


def _ram() -> float:
    machine, share = psutil.virtual_memory(), cgroup.memory()
    return share.percent if share is not None and share.limit < machine.total else machine.percent


def _swap() -> float | None:
    machine, share = psutil.swap_memory(), cgroup.swap()
    if share is not None and share.limit < machine.total:
        return share.percent
    return machine.percent if machine.total else None
