"""The resource monitor: reads use of CPU, RAM, swap, GPU and disk, and temperatures."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import psutil

from gearshift.training.callbacks.base import Numbers
from gearshift.training.resources import cgroup
from gearshift.training.resources.memory import host_bytes

if TYPE_CHECKING:
    import torch

RESOURCES = ("ram", "swap", "gpu", "cpu", "disk", "temperature")
"""What has a limit: in percent, or in degrees Celsius."""
Reading = Mapping[str, float | None]
"""Use of the machine by name, as `ResourceMonitor.read`; None: no such resource, or it is unknown."""
# Names of the sensors of processors in Linux, from the most exact to the least.
_SENSORS = (
    *("coretemp", "k10temp", "zenpower"),
    *("cpu_thermal", "cpu-thermal", "soc_thermal", "acpitz"),
)
# Of a device, at most, outside of a process's allocator: the CUDA context, buffers of NCCL and cuBLAS.
_CONTEXT_BYTES = 2**30


class ResourceMonitor(Thread):
    """Reads this machine, a device and the file system of a folder; as a thread every `every_s` seconds."""

    def __init__(self, device: torch.device, folder: Path, every_s: float) -> None:
        super().__init__(name="monitor", daemon=True)  # a run that fails must not wait for it
        self.new: Reading | None = None
        """The newest reading of the thread; its reader sets None."""
        self.newest: Numbers = {}
        """Use by resource, and of the GPU's time, for those that exist; `gpu` by all processes."""
        self.highest: Numbers = {}
        self._device = device
        self._folder = folder
        self._every_s = every_s
        self._stopping = Event()

    def read(self, cpu: float | None = None) -> Reading:
        """The uses, in percent unless a name says otherwise.

        `ram` and `swap`: in a container, of its limit. `host_bytes`: resident memory of this process.
        `cpu`: as given. `disk`: of the folder's file system, as in `df`. `temperature`: of the processor
        or the GPU, the hotter one, in degrees Celsius. The others as in `gpu_uses`.
        """
        disk = None
        gpu = gpu_uses(self._device)
        with suppress(OSError):  # the folder is gone
            disk = psutil.disk_usage(str(self._folder)).percent
        ram = psutil.virtual_memory()
        swap = psutil.swap_memory()
        reading = {
            "ram": _of_container(ram, cgroup.memory()),
            "swap": _of_container(swap, cgroup.swap()) if swap.total else None,
            "host_bytes": host_bytes(),
            "cpu": cpu,
            "disk": disk,
            **gpu,
            "temperature": max(filter(None, (cpu_celsius(), gpu["temperature"])), default=None),
        }
        uses = {**reading, "gpu": reading["gpu_all"]}
        names = (*RESOURCES, "gpu_busy")
        self.newest = {name: value for name in names if (value := uses[name]) is not None}
        highest = {
            name: max(value, self.highest.get(name, 0)) for name, value in self.newest.items()
        }
        self.highest = {**self.highest, **highest}
        return reading

    def run(self) -> None:
        """Read after each interval."""
        _cpu_percent()  # psutil counts from the call before in the same thread
        while not self._stopping.wait(self._every_s):
            self.new = self.read(_cpu_percent())

    def stop(self) -> None:
        """End the thread, if it was started, and wait for the reading it takes."""
        self._stopping.set()
        if self.is_alive():
            self.join()


def _cpu_percent() -> float:
    """Use of the cores this process may use, since the call before."""
    cores = psutil.cpu_percent(percpu=True)
    if hasattr(os, "sched_getaffinity"):
        cores = [cores[n] for n in os.sched_getaffinity(0) if n < len(cores)] or cores
    return sum(cores) / len(cores)


def _of_container(machine: Any, share: cgroup.Share | None) -> float:
    """The use in percent of psutil's record, or of a tighter limit."""
    percent: float = machine.percent
    return (
        100 * share.used / share.limit
        if share is not None and share.limit < machine.total
        else percent
    )


def cpu_celsius() -> float | None:
    """The hottest sensor of the processor in degrees Celsius; None where the system reports none."""
    with suppress(OSError, AttributeError):  # not Linux
        sensors = psutil.sensors_temperatures()
        for name in _SENSORS:
            # A sensor that is not connected gives other values.
            if plausible := [s.current for s in sensors.get(name, ()) if 1 < s.current < 150]:
                return max(plausible)
    return None


def gpu_uses(device: torch.device) -> Reading:
    """The uses of `device`, as its driver counts them, and its temperature; None if it is no NVIDIA GPU.

    `gpu`: of its memory, by other processes than this one: what limits.gpu limits. `gpu_all`: by all
    processes; what our allocator holds in reserve counts as free. `gpu_reserved_bytes`: what it
    holds, in use or not; `gpu_driver_bytes`: in use, over all processes. `gpu_busy`: share of the
    last moments in which a kernel ran.
    """
    names = ("gpu", "gpu_all", "gpu_reserved_bytes", "gpu_driver_bytes", "gpu_busy", "temperature")
    if device.type != "cuda":
        return dict.fromkeys(names)
    import torch

    from gearshift.training.resources import nvml

    nvml.keep_open()
    # By its unique id: CUDA_VISIBLE_DEVICES renumbers devices.
    (state,) = nvml.gpu_states(f"GPU-{torch.cuda.get_device_properties(device).uuid}") or [None]
    if state is None:
        free, total = torch.cuda.mem_get_info(device)
        state = nvml.GpuState(total - free, total)
    used = state.used
    total = state.total
    reserved = torch.cuda.memory_reserved(device)
    others = max(0, used - (state.by_process or reserved + _CONTEXT_BYTES))
    taken = used - reserved + torch.cuda.memory_allocated(device)
    uses = (
        100 * others / total,
        100 * taken / total,
        reserved,
        used,
        state.busy_percent,
        state.celsius,
    )
    return dict(zip(names, uses, strict=True))
