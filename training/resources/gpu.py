"""The memory of a GPU as its driver counts it, over all processes."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


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
