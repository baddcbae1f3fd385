"""NVML, NVIDIA's management library: memory, temperature and use of a GPU as the driver counts."""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class GpuState:
    """A GPU at one moment."""

    used: int
    """Bytes in use by all processes."""
    total: int
    by_process: int | None
    """Bytes of this process; None in a container that has process ids of its own."""
    celsius: float | None
    busy_percent: float | None
    """Share of the last second or less in which a kernel ran; None: the GPU does not say."""


def gpu_state(device: torch.device) -> GpuState | None:
    """The state of `device`, without a call into the runtime of training.

    None if NVML does not know it: another kind of device, a slice of a GPU, or no pynvml.
    """
    nvml = _nvml() if device.type == "cuda" else None
    if nvml is None:
        return None
    try:
        handle = _handle(nvml, device)
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        processes = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
    except nvml.NVMLError:
        return None
    ours = [process.usedGpuMemory for process in processes if process.pid == os.getpid()]
    celsius = _optional(nvml, nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU)
    rates = _optional(nvml, nvml.nvmlDeviceGetUtilizationRates, handle)
    busy = None if rates is None else float(rates.gpu)
    return GpuState(memory.used, memory.total, ours[0] if ours else None, celsius, busy)


def _optional(nvml: Any, read: Any, *arguments: Any) -> Any:
    """A value that some GPUs do not have."""
    try:
        return read(*arguments)
    except nvml.NVMLError:
        return None


@cache
def _nvml() -> Any:
    """The module pynvml, if it is installed and finds a driver."""
    import torch

    # On AMD, torch.cuda is ROCm, which NVML does not know.
    if torch.version.cuda is None:
        return None
    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
    except ImportError:
        return None
    except nvml.NVMLError:
        return None
    return nvml


@cache
def _handle(nvml: Any, device: torch.device) -> Any:
    """NVML's handle of a device, by its unique id: CUDA_VISIBLE_DEVICES renumbers devices."""
    import torch

    unique = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
    return nvml.nvmlDeviceGetHandleByUUID(unique)
