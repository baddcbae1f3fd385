"""What this machine has, seen without importing torch."""

from __future__ import annotations

import ctypes
import importlib.util
import math
import os
import platform
import re
from dataclasses import dataclass, replace
from pathlib import Path

from launcher.base import environment
from launcher.base.diagnostics import counted
from training.resources import cgroup

CONTROL_GROUP = Path("/sys/fs/cgroup")
_BF16 = re.compile(r"^(?:flags|Features)\s*:.*\b(?:avx512_bf16|amx_bf16|bf16)\b", re.MULTILINE)


@dataclass(frozen=True)
class Machine:
    """What a run may count on here."""

    cores: int
    """CPU cores that this process may use."""
    ram_bytes: int | None
    gpus: int
    """GPUs that torch, as installed, can use here."""
    device: str
    """The fastest of cuda, xpu, mps and cpu."""
    cpu_bf16: bool
    """Whether the CPU multiplies bf16 natively."""
    gpu_bf16: bool
    """Whether every GPU does."""
    compiler: bool
    """Whether there is a C++ compiler."""
    gpu_bytes: int | None = None
    """Memory of the smallest GPU; None: unknown, or no NVIDIA GPU."""

    def for_ranks(self, ranks: int, cpus: int | None) -> Machine:
        """What `ranks` on this machine may count on together, of which each was given `cpus`.

        None: unknown. A scheduler may have bound this process to its CPUs, or not.
        """
        return self if cpus is None else replace(self, cores=min(self.cores, cpus) * ranks)

    @property
    def sentence(self) -> str:
        """Cores, memory and GPUs in one line."""
        ram = f", {self.ram_bytes / 2**30:.1f} GiB" if self.ram_bytes else ""
        gpus = counted(self.gpus, "GPU") if self.gpus else "no GPU"
        return f"{counted(self.cores, 'core')}{ram}, {gpus}"


def detect_machine(group: Path = CONTROL_GROUP) -> Machine:
    """What there is now: reads /proc, /sys and /dev, and asks NVIDIA's library about its GPUs.

    `group` is the folder of the process's control group, with the limits of a container.
    """
    device, gpus = _accelerator()
    nvidia = nvidia_facts(environment.visible_cuda_devices()) if device == "cuda" else []
    return Machine(
        cores=_cores(group),
        ram_bytes=_ram_bytes(group),
        gpus=gpus,
        device=device,
        cpu_bf16=has_bf16(_text(Path("/proc/cpuinfo"))),
        gpu_bf16=device == "xpu" or (device == "cuda" and all(gpu.has_bf16 for gpu in nvidia)),
        compiler=environment.cxx_compiler() is not None,
        gpu_bytes=min((gpu.memory_bytes for gpu in nvidia), default=None),
    )


def _cores(group: Path) -> int:
    has_affinity = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    quota, period = "", ""  # of the control group
    if len(whole := _text(group / "cpu.max").split()) == 2:  # version 2: both in one file
        quota, period = whole
    else:
        quota = _text(group / "cpu/cpu.cfs_quota_us").strip()
        period = _text(group / "cpu/cpu.cfs_period_us").strip()
    if quota.isdigit() and period.isdigit():  # max and -1: no limit
        cores = min(cores, math.ceil(int(quota) / int(period)))
    return max(1, cores)


def _ram_bytes(group: Path) -> int | None:
    """Main memory, or the limit of a control group where that is lower: a container's, a job's."""
    try:
        whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        limit = _text(group / name).strip()
        if limit.isdigit():
            whole = min(whole, int(limit))
            break
    group_memory = cgroup.memory()
    return whole if group_memory is None else min(whole, group_memory.limit)


def _accelerator() -> tuple[str, int]:
    build = _torch_build()
    if build.get("cuda") or build.get("hip"):
        gpus = visible(nvidia_gpus() or amd_gpus(), environment.visible_cuda_devices())
        if gpus:
            return "cuda", gpus
    if build.get("xpu") and (gpus := _render_nodes()):
        return "xpu", gpus
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return "mps", 1
    return "cpu", 0


def _torch_build() -> dict[str, str]:
    """What the installed torch was built for, read from its version file: importing it is slow."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        return {}
    text = _text(Path(next(iter(spec.submodule_search_locations))) / "version.py")
    return dict(re.findall(r"^(cuda|hip|xpu)\b[^=]*= '([^']+)'", text, re.MULTILINE))


def amd_gpus() -> int:
    """The AMD GPUs of this machine, whether torch can use them or not."""
    return _render_nodes() if Path("/dev/kfd").exists() else 0


def nvidia_gpus() -> int:
    """The NVIDIA GPUs of this machine, whether torch can use them or not."""
    listed = Path("/proc/driver/nvidia/gpus")
    if listed.is_dir():
        return len(list(listed.iterdir()))
    if Path("/dev/dxg").exists():  # Windows Subsystem for Linux has one device for all
        return 1
    return len([p for p in Path("/dev").glob("nvidia*") if p.name[6:].isdigit()])


@dataclass(frozen=True)
class NvidiaGpu:
    """What NVIDIA's driver says of a GPU."""

    has_bf16: bool
    """Whether it multiplies bf16 natively, as from compute capability 8 on."""
    memory_bytes: int


def nvidia_facts(named: str | None) -> list[NvidiaGpu]:
    """The NVIDIA GPUs that CUDA_VISIBLE_DEVICES `named`, of all if it is None. Empty: unknown.

    Touches neither torch nor CUDA. Source: NVML API reference, device queries.
    """
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:  # no NVIDIA GPU, or a system without this library
        return []
    if nvml.nvmlInit_v2():
        return []
    count, gpus = ctypes.c_uint(), []
    nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
    names = [str(number) for number in range(count.value)] if named is None else named.split(",")
    for name in map(str.strip, names):
        handle, major, minor = ctypes.c_void_p(), ctypes.c_int(8), ctypes.c_int()
        memory = (ctypes.c_ulonglong * 3)()  # total, free, used
        if name.isdigit():
            failed = nvml.nvmlDeviceGetHandleByIndex_v2(int(name), ctypes.byref(handle))
        else:
            failed = nvml.nvmlDeviceGetHandleByUUID(name.encode(), ctypes.byref(handle))
        if failed or nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)):
            continue
        nvml.nvmlDeviceGetCudaComputeCapability(handle, ctypes.byref(major), ctypes.byref(minor))
        gpus.append(NvidiaGpu(major.value >= 8, memory[0]))
    nvml.nvmlShutdown()
    return gpus


def _render_nodes() -> int:
    return len(list(Path("/dev/dri").glob("renderD*")))


def visible(gpus: int, named: str | None) -> int:
    """How many of `gpus` CUDA_VISIBLE_DEVICES lets us see; None: it is not set."""
    if named is None:
        return gpus
    ids = [name for name in named.split(",") if name.strip() and name.strip() != "-1"]
    return min(gpus, len(ids))


def has_bf16(cpuinfo: str) -> bool:
    """Whether the flags of /proc/cpuinfo name a native bf16: x86 and Arm."""
    return bool(_BF16.search(cpuinfo))


def _text(path: Path) -> str:
    """The content of a file; empty if it cannot be read."""
    try:
        return path.read_text()
    except OSError:
        return ""
