"""The resource monitor: reads use of CPU, RAM, swap, GPU and disk, and temperatures."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from training.callbacks.base import Numbers
from training.logging.metrics import ResourceUsage
from training.resources import cgroup
from training.resources.memory import host_bytes

if TYPE_CHECKING:
    import torch

    from training.resources.nvml import GpuState

RESOURCES = ("ram", "swap", "gpu", "cpu", "disk", "temperature")
"""What has a limit: in percent, or in degrees Celsius."""
Reading = Mapping[str, float | None]
"""Use of the machine by name, as MachineReader reads it; None: no such resource, or it is unknown."""
_LEAST_S = 0.5  # Shorter intervals are too coarse for CPU use: the kernel counts in hundredths of a second
# Names of the sensors of processors in Linux, from the most exact to the least.
_SENSORS = (*("coretemp", "k10temp", "zenpower"), *("cpu_thermal", "cpu-thermal", "soc_thermal", "acpitz"))
# At most this much of a device belongs to a process outside of its allocator: the CUDA context, buffers
# of NCCL and cuBLAS.
_CONTEXT_BYTES = 2**30


class MachineReader:
    """Reads this machine, a device and the file system of a folder."""

    def __init__(self, device: torch.device, folder: Path) -> None:
        self._device, self._folder = device, folder
        self._cpu: float | None = None
        self._cpu_read_at = 0.0
        self._read_gpu: Callable[[], GpuState | None] | None = None

    def read(self) -> Reading:
        """The uses, in percent unless a name says otherwise.

        `ram` and `swap`: in a container, of its limit. `host_bytes`: resident memory of this
        process. `cpu`: of the cores this process may use, since the reading before. `disk`: of the
        file system of the folder, as in `df`. `temperature`: of the processor or the GPU, the
        hotter one, in degrees Celsius. `gpu_busy`: share of the last moments in which a kernel ran.
        The others as in `device_uses`.
        """
        disk, gpu = None, self._gpu()
        with suppress(OSError):  # the folder is gone
            disk = psutil.disk_usage(str(self._folder)).percent
        ram, swap = psutil.virtual_memory(), psutil.swap_memory()
        gpu_celsius, gpu_busy = (gpu.celsius, gpu.busy_percent) if gpu else (None, None)
        celsius = (cpu_celsius(), gpu_celsius)
        return {
            "ram": _of_container(ram, cgroup.memory()),
            "swap": _of_container(swap, cgroup.swap()) if swap.total else None,
            "host_bytes": host_bytes(),
            "cpu": self._cpu_percent(),
            "disk": disk,
            "temperature": max((value for value in celsius if value is not None), default=None),
            "gpu_busy": gpu_busy,
            **device_uses(self._device, gpu),
        }

    def _gpu(self) -> GpuState | None:
        if self._device.type != "cuda":
            return None
        if self._read_gpu is None:
            import torch

            from training.resources import nvml

            self._read_gpu = nvml.gpu_reader(f"GPU-{torch.cuda.get_device_properties(self._device).uuid}")
        return self._read_gpu()

    def _cpu_percent(self) -> float | None:
        now, before = time.monotonic(), self._cpu_read_at
        if now - before >= _LEAST_S:
            cores, self._cpu_read_at = psutil.cpu_percent(percpu=True), now
            if hasattr(os, "sched_getaffinity"):
                cores = [cores[n] for n in os.sched_getaffinity(0) if n < len(cores)] or cores
            self._cpu = sum(cores) / len(cores) if before else None
        return self._cpu


def _of_container(machine: Any, share: cgroup.Share | None) -> float:
    """The use in percent of psutil's record, or of a tighter limit."""
    percent: float = machine.percent
    return share.percent if share is not None and share.limit < machine.total else percent


def cpu_celsius() -> float | None:
    """The hottest sensor of the processor in degrees Celsius; None where the system reports none."""
    sensors = {}
    with suppress(OSError, AttributeError):  # not Linux
        sensors = psutil.sensors_temperatures()
    for name in _SENSORS:
        # A sensor that is not connected gives other values.
        if plausible := [s.current for s in sensors.get(name, ()) if 1 < s.current < 150]:
            return max(plausible)
    return None


def device_uses(device: torch.device, state: GpuState | None) -> Reading:
    """The uses of `device`, as its driver counts them; None if it is no NVIDIA GPU.

    `gpu`: of its memory, by other processes than this one: what limits.gpu limits. `gpu_all`: by all
    processes; what our allocator holds in reserve counts as free. `gpu_reserved_bytes`: what it
    holds, in use or not; `gpu_driver_bytes`: in use, over all processes. `state` comes from NVML;
    None: the runtime of training is asked.
    """
    names = ("gpu", "gpu_all", "gpu_reserved_bytes", "gpu_driver_bytes")
    if device.type != "cuda":
        return dict.fromkeys(names)
    import torch

    free, total = (
        torch.cuda.mem_get_info(device) if state is None else (state.total - state.used, state.total)
    )
    used, reserved = total - free, torch.cuda.memory_reserved(device)
    ours = (state and state.by_process) or reserved + _CONTEXT_BYTES
    others, unused = max(0, used - ours), reserved - torch.cuda.memory_allocated(device)
    uses = (100 * others / total, 100 * (used - unused) / total, reserved, used)
    return dict(zip(names, uses, strict=True))


def usage_of(reading: Reading) -> Numbers:
    """Use by resource, and of the GPU's time, for those that exist; `gpu` by all processes."""
    uses = {name: reading[name] for name in (*RESOURCES, "gpu_busy")} | {"gpu": reading["gpu_all"]}
    return {name: value for name, value in uses.items() if value is not None}


class ResourceMonitor:
    """Calls `read` every `every_s` seconds in a thread, and keeps the newest reading."""

    def __init__(
        self, read: Callable[[], Reading], every_s: float, usage: ResourceUsage | None = None
    ) -> None:
        """Every reading is added to `usage`."""
        self._read, self._every_s, self._usage = read, every_s, usage or ResourceUsage()
        self._new: Reading | None = None
        self._reading = threading.Lock()
        self._stopping = threading.Event()
        # A daemon: a run that fails must not wait for its monitor.
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)

    def read(self) -> Reading:
        with self._reading:
            reading = self._read()
            self._usage.add(usage_of(reading))
        return reading

    def start(self) -> None:
        """Start the thread; the first reading comes after one interval."""
        self._thread.start()

    def take(self) -> Reading | None:
        """The newest reading of the thread, once; None if there is no new one."""
        reading, self._new = self._new, None
        return reading

    def stop(self) -> None:
        """End the thread, if it was started, and wait for the reading it takes."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self._every_s):
            self._new = self.read()
