"""NVML, NVIDIA's management library, by ctypes: what the driver says of a GPU, without torch."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from contextlib import suppress
from ctypes import byref
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

LIBRARY = "libnvidia-ml.so.1"
DRIVER = "libcuda.so.1"
_UUID_BYTES = 96
_NO_BYTES = 2**64 - 1
_MAX_PROCESSES = 512


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


class _Memory(ctypes.Structure):
    _fields_: ClassVar = [(name, ctypes.c_ulonglong) for name in ("total", "free", "used")]


class _Process(ctypes.Structure):
    """nvmlProcessInfo_v2_t."""

    _fields_: ClassVar = [
        *(("pid", ctypes.c_uint), ("used", ctypes.c_ulonglong)),
        *(("gpu_instance", ctypes.c_uint), ("compute_instance", ctypes.c_uint)),
    ]


def gpu_states(named: str | None) -> list[GpuState | None]:
    """Each GPU that CUDA_VISIBLE_DEVICES `named`, or all if it is None; None: it is unknown.

    Numbers are those of CUDA_DEVICE_ORDER=PCI_BUS_ID; of a unique id its beginning is enough.

    Empty without an NVIDIA GPU or its library. Opens the library and closes it again, so that
    processes may be forked later. Source: NVML API reference, device queries.
    """
    library, count = _opened(), ctypes.c_uint()
    if library is None:
        return []
    library.nvmlDeviceGetCount_v2(byref(count))
    names = list(map(str, range(count.value)))
    if named is not None:
        ids, parts = [], [part for name in named.split(",") if (part := name.strip()) not in ("", "-1")]
        for name in names:
            handle, text = ctypes.c_void_p(), ctypes.create_string_buffer(_UUID_BYTES)
            if _asks(library, "HandleByIndex_v2", int(name), byref(handle)):
                ids += [text.value.decode()] if _asks(library, "UUID", handle, text, _UUID_BYTES) else []
        names = [
            part if part.isdigit() else next((i for i in ids if i.startswith(part)), part) for part in parts
        ]
    states = [_state(library, name) for name in names]
    library.nvmlShutdown()
    return states


def driver_cuda() -> tuple[int, int] | None:
    """The newest CUDA that NVIDIA's driver runs; None: it is not installed or not loaded.

    Does not start CUDA: processes may be forked later. Source: CUDA driver API, cuDriverGetVersion.
    """
    version = ctypes.c_int()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(DRIVER).cuDriverGetVersion(byref(version))
    return divmod(version.value // 10, 100) if version.value else None


def gpu_reader(name: str) -> Callable[[], GpuState | None]:
    """A function that reads the GPU with the unique id `name`; None: it is unknown.

    Numbers do not serve here: CUDA_VISIBLE_DEVICES renumbers devices. The library stays open.
    """
    library = _opened()
    return partial(_state, library, name) if library is not None else lambda: None


def _opened() -> Any:
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError:  # no NVIDIA GPU, or a system without this library
        return None
    return None if library.nvmlInit_v2() else library


def _asks(library: Any, function: str, *arguments: Any) -> bool:
    """Whether NVML answers; old drivers lack some functions, and GPUs some sensors."""
    call = getattr(library, f"nvmlDeviceGet{function}", None)
    return call is not None and call(*arguments) == 0


def _state(library: Any, name: str) -> GpuState | None:
    """The GPU with this number or unique id; None: no such one, or its memory is unknown."""
    asks, handle, memory = partial(_asks, library), ctypes.c_void_p(), _Memory()
    find = ("HandleByIndex_v2", int(name)) if name.isdigit() else ("HandleByUUID", name.encode())
    exists = asks(*find, byref(handle))
    in_mig, pending = ctypes.c_uint(), ctypes.c_uint()
    if exists and not name.startswith("MIG-"):
        asks("MigMode", handle, byref(in_mig), byref(pending))
    # In MIG mode a process gets one slice, not the memory of the whole GPU.
    if not exists or in_mig.value or not asks("MemoryInfo", handle, byref(memory)):
        return None
    celsius, major, minor = ctypes.c_uint(), ctypes.c_int(), ctypes.c_int()
    rates = (ctypes.c_uint * 2)()  # of kernels, of memory
    listed, processes = ctypes.c_uint(_MAX_PROCESSES), (_Process * _MAX_PROCESSES)()
    if not asks("ComputeRunningProcesses_v3", handle, byref(listed), processes):
        listed.value = 0
    ours = [p.used for p in processes[: listed.value] if p.pid == os.getpid()]
    has_capability = asks("CudaComputeCapability", handle, byref(major), byref(minor))
    return GpuState(
        memory.used,
        memory.total,
        ours[0] if ours and ours[0] != _NO_BYTES else None,
        float(celsius.value) if asks("Temperature", handle, 0, byref(celsius)) else None,
        float(rates[0]) if asks("UtilizationRates", handle, byref(rates)) else None,
        (major.value, minor.value) if has_capability else None,
    )
