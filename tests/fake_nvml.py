"""A stand-in for NVIDIA's management library: a shared library, compiled from C."""

import ctypes
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pynvml
import pytest

needs_c = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")


@dataclass(frozen=True)
class FakeGpu:
    """A GPU, or with a name like MIG-a a slice of one; None: what it does not tell."""

    name: str
    total: int | None = 20
    used: int = 8
    process: tuple[int, int] | None = None
    """Id and bytes of the process that uses it."""
    busy: int | None = None
    capability: tuple[int, int] | None = None
    is_split: bool = False
    """In MIG mode."""
    is_hidden: bool = False
    """By a control group of devices."""


def use_nvml(monkeypatch, library):
    """Let pynvml find this library; None: the one of the machine."""
    monkeypatch.setattr(pynvml, "nvmlLib", ctypes.CDLL(str(library)) if library else None)
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})


def build_nvml(folder, *gpus, lists="v3", cuda=(12, 8)):
    """The library file of a driver with these `gpus`.

    `lists`: its newest list of processes; `cuda`: the newest version that it runs.
    """
    folder, rows = Path(tempfile.mkdtemp(dir=folder)), []  # a loaded file must stay as it is
    for gpu in gpus:
        numbers = [gpu.total or 0, gpu.used, *(gpu.process or (0, 0))]
        numbers.append(-1 if gpu.busy is None else gpu.busy)
        numbers += [*(gpu.capability or (0, 0)), int(gpu.is_split), int(gpu.is_hidden)]
        rows.append(f'{{"{gpu.name}", {", ".join(f"{number}ULL" for number in numbers)}}}')
    text = SOURCE.replace("ROWS", ", ".join(rows)).replace("COUNT", str(len(rows)))
    (folder / "nvml.c").write_text(
        text.replace("LISTS", lists).replace("DRIVER", str(1000 * cuda[0] + 10 * cuda[1]))
    )
    library = folder / "libnvidia-ml.so.1"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, folder / "nvml.c"], check=True)
    return library


SOURCE = """
#include <string.h>
typedef unsigned long long Bytes;
typedef struct { const char *name; Bytes total, used, pid, held, busy, major, minor, split, hidden; } Gpu;
typedef struct { unsigned pid; Bytes used; unsigned instance, compute; } Process;
static Gpu gpus[] = {ROWS};
static int opened = 0;
enum { OK, UNINITIALIZED, INVALID, UNSUPPORTED, NO_PERMISSION, NOT_FOUND = 6, TOO_SMALL };

int nvmlInitWithFlags(unsigned flags) { opened++; return OK; }
int nvmlShutdown(void) { opened--; return OK; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = COUNT; return OK; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, Gpu **gpu) {
    if (!opened) return UNINITIALIZED;
    if (i >= COUNT) return INVALID;
    if (gpus[i].hidden) return NO_PERMISSION;
    *gpu = gpus + i;
    return OK;
}
int nvmlDeviceGetHandleByUUID(const char *name, Gpu **gpu) {
    if (!opened) return UNINITIALIZED;
    for (*gpu = gpus; *gpu < gpus + COUNT; ++*gpu)
        if (!strcmp((*gpu)->name, name)) return OK;
    return NOT_FOUND;
}
int nvmlDeviceGetMigMode(Gpu *gpu, unsigned *now, unsigned *later) { *now = *later = gpu->split; return OK; }
int nvmlDeviceGetMemoryInfo(Gpu *gpu, Bytes *memory) {
    memory[0] = gpu->total;
    memory[1] = gpu->total - gpu->used;
    memory[2] = gpu->used;
    return gpu->total ? OK : UNSUPPORTED;
}
int nvmlDeviceGetComputeRunningProcesses_LISTS(Gpu *gpu, unsigned *count, Process *processes) {
    unsigned room = *count;
    *count = 1 + !!gpu->pid;
    if (room < *count) return TOO_SMALL;
    processes[0] = (Process){1, 2, -1, -1};
    if (gpu->pid) processes[1] = (Process){gpu->pid, gpu->held, -1, -1};
    return OK;
}
int nvmlDeviceGetUUID(Gpu *gpu, char *text, unsigned room) { strncpy(text, gpu->name, room); return OK; }
int nvmlSystemGetCudaDriverVersion_v2(int *version) { *version = DRIVER; return OK; }
int nvmlDeviceGetUtilizationRates(Gpu *gpu, unsigned *rates) {
    rates[0] = gpu->busy;
    rates[1] = 40;
    return rates[0] == -1u ? UNSUPPORTED : OK;
}
int nvmlDeviceGetCudaComputeCapability(Gpu *gpu, int *major, int *minor) {
    *major = gpu->major;
    *minor = gpu->minor;
    return *major ? OK : UNSUPPORTED;
}
"""
