"""What NVIDIA's driver tells of a GPU: by NVML, its management library, and without torch."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import pynvml


@dataclass(frozen=True)
class GpuState:
    """A GPU, or a slice of one, at one moment."""

    used: int
    """Bytes in use by all processes and by the driver."""
    total: int
    by_process: int | None = None
    """Bytes of this process; None in a container that has process ids of its own."""
    celsius: float | None = None
    busy_percent: float | None = None
    """Share of the last second or less in which a kernel ran; None: the GPU does not say."""
    capability: tuple[int, int] | None = None
    """CUDA compute capability."""


def gpu_states(named: str | None) -> list[GpuState | None]:
    """Each GPU that CUDA_VISIBLE_DEVICES `named`, or all if it is None; None: it is unknown.

    Numbers are those of CUDA_DEVICE_ORDER=PCI_BUS_ID; of a unique id its beginning is enough.
    Empty without an NVIDIA GPU or its library. Closes the library, so that processes may be forked
    later.
    """
    if not _is_open():
        return []
    names = [str(number) for number in range(pynvml.nvmlDeviceGetCount())]
    if named is not None:
        ids = [str(_ask("UUID", _ask("HandleByIndex", int(name)))) for name in names]
        parts = [part for name in named.split(",") if (part := name.strip()) not in ("", "-1")]
        names = [p if p.isdigit() else next((i for i in ids if i.startswith(p)), p) for p in parts]
    states = [_state(name) for name in names]
    pynvml.nvmlShutdown()
    return states


def driver_cuda() -> tuple[int, int] | None:
    """The newest CUDA that NVIDIA's driver runs; None: it is not installed or not loaded."""
    if not _is_open():
        return None
    try:
        return divmod(pynvml.nvmlSystemGetCudaDriverVersion_v2() // 10, 100)
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()


def gpu_reader(name: str) -> Callable[[], GpuState | None]:
    """A function that reads the GPU with the unique id `name`; None: it is unknown.

    Numbers do not serve here: CUDA_VISIBLE_DEVICES renumbers devices. The library stays open.
    """
    return partial(_state, name) if _is_open() else lambda: None


def _is_open() -> bool:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # no NVIDIA GPU, or a system without this library
        return False
    return True


def _ask(what: str, *arguments: Any) -> Any:
    """None: an old driver lacks the function, or the GPU the sensor."""
    with suppress(pynvml.NVMLError):
        return getattr(pynvml, f"nvmlDeviceGet{what}")(*arguments)


def _state(name: str) -> GpuState | None:
    """The GPU with this number or unique id; None: no such one, or its memory is unknown."""
    gpu = _ask("HandleByIndex", int(name)) if name.isdigit() else _ask("HandleByUUID", name)
    if gpu is None:
        return None
    # In MIG mode a process gets one slice, not the memory of the whole GPU.
    is_split = not name.startswith("MIG-") and (_ask("MigMode", gpu) or [0])[0]
    memory, rates = _ask("MemoryInfo", gpu), _ask("UtilizationRates", gpu)
    if is_split or memory is None:
        return None
    processes = _ask("ComputeRunningProcesses_v3", gpu) or ()
    celsius = _ask("Temperature", gpu, pynvml.NVML_TEMPERATURE_GPU)
    return GpuState(
        memory.used,
        memory.total,
        next((process.usedGpuMemory for process in processes if process.pid == os.getpid()), None),
        None if celsius is None else float(celsius),
        None if rates is None else float(rates.gpu),
        _ask("CudaComputeCapability", gpu),
    )
