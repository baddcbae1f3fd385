"""What NVIDIA's driver tells of a GPU: by NVML, its management library, and without torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import pynvml


@dataclass(frozen=True)
class GpuState:
    """A GPU, or a slice of one, at one moment; None: the GPU or an old driver does not say."""

    used: int
    """Bytes in use by all processes and by the driver."""
    total: int
    by_process: int | None = None
    """Bytes of this process; None in a container that has process ids of its own."""
    busy_percent: int | None = None
    """Share of the last second or less in which a kernel ran."""
    capability: tuple[int, int] | None = None
    """CUDA compute capability."""


def gpu_states(named: str | None) -> list[GpuState | None]:
    """Each GPU that CUDA_VISIBLE_DEVICES `named`, or all if it is None; None: it is unknown.

    Of all without those that a control group of devices hides, as a scheduler does: CUDA does not
    see them, and NVML counts them. Numbers are those of CUDA_DEVICE_ORDER=PCI_BUS_ID. Empty without
    an NVIDIA GPU or its library. Closes the library, so that processes may be forked later, unless
    it is kept open.
    """
    with suppress(pynvml.NVMLError), _nvml():
        if named is None:
            return [_state(gpu) for gpu in _permitted()]
        states = []
        for name in map(str.strip, named.split(",")):
            if name not in ("", "-1"):
                states.append(_state(_gpu(name), is_slice=name.startswith("MIG-")))
        return states
    return []


def driver_cuda() -> tuple[int, int] | None:
    """The newest CUDA that NVIDIA's driver runs; None: it is not installed or not loaded."""
    with suppress(pynvml.NVMLError), _nvml():
        return divmod(pynvml.nvmlSystemGetCudaDriverVersion_v2() // 10, 100)
    return None


@cache
def keep_open() -> None:
    """Open the library for all of this process: opening it again could wake each GPU."""
    with suppress(pynvml.NVMLError):
        pynvml.nvmlInit()


@contextmanager
def _nvml() -> Iterator[None]:
    pynvml.nvmlInit()
    try:
        yield
    finally:
        pynvml.nvmlShutdown()


def _ask(what: str, *arguments: Any) -> Any:
    with suppress(pynvml.NVMLError):
        return getattr(pynvml, f"nvmlDeviceGet{what}")(*arguments)


def _permitted() -> list[Any]:
    """The GPUs that this process may use, in the order of CUDA; None: one that does not answer.

    Source: NVML API reference, nvmlDeviceGetCount_v2 and nvmlDeviceGetHandleByIndex_v2.
    """
    gpus = []
    for number in range(pynvml.nvmlDeviceGetCount()):
        try:
            gpus.append(pynvml.nvmlDeviceGetHandleByIndex(number))
        except pynvml.NVMLError_NoPermission:
            continue
        except pynvml.NVMLError:
            gpus.append(None)
    return gpus


def _gpu(name: str) -> Any:
    """The GPU with this number or unique id; None: no such one."""
    if name.isdigit():
        gpus = _permitted()
        return gpus[int(name)] if int(name) < len(gpus) else None
    return _ask("HandleByUUID", name)


def _state(gpu: Any, *, is_slice: bool = False) -> GpuState | None:
    """The state of a GPU, or of a slice of one; None: there is no GPU, or its memory is unknown."""
    if gpu is None:
        return None
    # In MIG mode a process gets one slice, not the memory of the whole GPU.
    if not is_slice and (_ask("MigMode", gpu) or [0])[0]:
        return None
    memory = _ask("MemoryInfo", gpu)
    if memory is None:
        return None
    rates = _ask("UtilizationRates", gpu)
    by_process = None
    for process in _ask("ComputeRunningProcesses_v3", gpu) or ():
        if process.pid == os.getpid():
            by_process = process.usedGpuMemory
    return GpuState(
        used=memory.used,
        total=memory.total,
        by_process=by_process,
        busy_percent=None if rates is None else rates.gpu,
        capability=_ask("CudaComputeCapability", gpu),
    )
