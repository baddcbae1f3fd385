"""What this machine has, seen without importing torch."""

from __future__ import annotations

import importlib.util
import math
import os
import platform
import re
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from gearshift.launcher.base import environment
from gearshift.launcher.base.diagnostics import counted
from gearshift.training.resources import memory

if TYPE_CHECKING:
    from gearshift.training.resources.nvml import GpuState

CONTROL_GROUP = Path("/sys/fs/cgroup")
CONTEXT_BYTES = NCCL_BYTES = 2**29
"""Of a GPU's memory, for the CUDA context of a process with its libraries, and for NCCL's buffers;
estimates until they are measured."""
_COMPILER = "a C++ compiler"
_VISIBLE = "CUDA_VISIBLE_DEVICES"
_BF16 = re.compile(r"^(?:flags|Features)\s*:.*\b(?:avx512_bf16|amx_bf16|bf16)\b", re.MULTILINE)


@dataclass(frozen=True)
class Machine:
    """Hardware and software that a run may use here."""

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
    """Whether every GPU does, as far as it is known."""
    compiler: bool
    """Whether there is a C++ compiler."""
    gpu_bytes: int | None = None
    """Memory of the smallest GPU; None: unknown, or no NVIDIA GPU."""
    gpu_others_bytes: tuple[int, ...] = ()
    """Memory that other processes use of each GPU, as far as it is known."""
    triton_lacks: str | None = None
    """A requirement of torch.compile for a GPU that is missing here; None: nothing."""
    torch: tuple[int, ...] = ()
    """Version of torch; empty: unknown."""
    are_unlike: bool = False
    """Whether its GPUs are of several kinds, as far as it is known."""
    unused: str = ""
    """Why the GPUs of this machine are not used; empty: they are, or there are none."""

    def for_ranks(self, ranks: int, cpus: int | None) -> Machine:
        """What `ranks` on this machine may count on together, of which each was given `cpus`.

        None: unknown. A scheduler may have bound this process to its CPUs, or not. What others use
        of a GPU does not count: it may be an earlier rank, and all ranks must decide the same.
        """
        cores = self.cores
        if cpus is not None:
            cores = min(cores, cpus) * ranks
        return replace(self, cores=cores, gpu_others_bytes=())

    def tensor_bytes(self, ranks: int, nodes: int = 1) -> int | None:
        """Memory of a GPU for the tensors of one of `ranks` on each of `nodes`; None: unknown.

        The rest is for other processes, the CUDA context and between several ranks NCCL.
        """
        if self.gpu_bytes is None:
            return None
        others = max(self.gpu_others_bytes[:ranks], default=0)
        nccl = NCCL_BYTES if ranks * nodes > 1 else 0
        return max(0, self.gpu_bytes - others - CONTEXT_BYTES - nccl)

    def compiler_lacks(self, device: str) -> str | None:
        """A requirement of torch.compile for `device` that is missing here; None: nothing."""
        if device == "cuda":
            return self.triton_lacks
        return None if self.compiler else _COMPILER

    @property
    def sentence(self) -> str:
        """Cores, memory and GPUs in one line."""
        ram = f", {self.ram_bytes / 2**30:.1f} GiB" if self.ram_bytes else ""
        return f"{counted(self.cores, 'core')}{ram}, {counted(self.gpus, 'GPU')}"


def detect_machine(group: Path = CONTROL_GROUP) -> Machine:
    """Detect cores, memory and GPUs. Reads /proc, /sys and /dev, and calls NVIDIA's library.

    `group` is the folder of the process's control group, with the limits of a container.
    """
    build = _torch_build()
    device, gpus, unused = _accelerator(build)
    states: list[GpuState | None] = []
    if device == "cuda":
        from gearshift.training.resources import nvml

        states = nvml.gpu_states(environment.variables().get(_VISIBLE))
    known = [state for state in states if state is not None]
    gpu_bytes = None
    if known and len(known) == len(states):
        gpu_bytes = min(state.total for state in known)
    capabilities = [state.capability for state in known if state.capability is not None]
    capability = min(capabilities, default=None)
    ram_bytes = psutil.virtual_memory().total
    limit = memory.container_memory(group)
    version = re.findall(r"\d+", build.get("__version__", ""))
    return Machine(
        cores=_cores(group),
        ram_bytes=ram_bytes if limit is None else min(ram_bytes, limit.limit),
        gpus=gpus,
        device=device,
        cpu_bf16=has_bf16(_text(Path("/proc/cpuinfo"))),
        gpu_bf16=(capability or (8, 0)) >= (8, 0),
        compiler=environment.compiler("CXX", "c++", "g++", "clang++") is not None,
        gpu_bytes=gpu_bytes,
        gpu_others_bytes=tuple(gpu.used - (gpu.by_process or 0) for gpu in known),
        triton_lacks=_triton_lacks(capability) if device == "cuda" else None,
        torch=tuple(map(int, version[:2])),
        are_unlike=len({(state.total >> 30, state.capability) for state in known}) > 1,
        unused=unused,
    )


def _triton_lacks(capability: tuple[int, int] | None) -> str | None:
    """A requirement of torch.compile for a GPU that is missing; None: nothing.

    Source: triton/runtime/build.py and torch/utils/_triton.py.
    """
    if importlib.util.find_spec("triton") is None:
        return "the package triton"
    if not environment.compiler("CC", "gcc", "clang"):
        return "a C compiler"
    header = Path(sysconfig.get_path("include", "posix_prefix"), "Python.h")
    if not header.exists():
        return f"{header}, from the package python3-dev or python3-devel"
    if capability is not None and capability < (7, 0):
        return "a GPU of compute capability 7.0 or newer"
    return None


def _cores(group: Path) -> int:
    """CPU cores that this process may use."""
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    # Version 2 of control groups has both in one file, version 1 in two.
    files = ("cpu.max", "cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")
    quota = " ".join(_text(group / name) for name in files).split()
    if len(quota) == 2 and all(map(str.isdigit, quota)):  # max and -1: no limit
        cores = min(cores, math.ceil(int(quota[0]) / int(quota[1])))
    return max(1, cores)


def _accelerator(build: Mapping[str, str]) -> tuple[str, int, str]:
    """The fastest device of torch as in `build`, how many there are, and why others are idle."""
    variables = environment.variables()
    cuda = build.get("cuda")
    nvidia = nvidia_gpus()
    amd = amd_gpus()
    names = [_VISIBLE]
    gpus = 0
    problem = f"torch {build.get('__version__')} cannot use the GPUs, or they are hidden from it"
    if build.get("hip"):
        gpus = amd
        names += ["HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"]
    elif cuda and nvidia:
        from gearshift.training.resources import nvml

        newest = nvml.driver_cuda()
        if newest is not None and newest[0] < int(cuda.partition(".")[0]):
            version = ".".join(map(str, newest))
            problem = f"the driver runs CUDA {version} at most, and torch was built for CUDA {cuda}"
        elif newest is not None:
            gpus = len(nvml.gpu_states(None))  # without those that CUDA does not see
    if gpus or not nvidia + amd:
        problem = ""
    gpus = min(visible(gpus, variables.get(name)) for name in names)
    if gpus:
        return "cuda", gpus, ""
    render_nodes = _render_nodes() if build.get("xpu") else 0
    if render_nodes:
        return "xpu", render_nodes, ""
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return "mps", 1, ""
    return "cpu", 0, problem


def _torch_build() -> dict[str, str]:
    """The version of the installed torch and what it was built for: importing it is slow."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        return {}
    text = _text(Path(next(iter(spec.submodule_search_locations))) / "version.py")
    return dict(re.findall(r"^(__version__|cuda|hip|xpu)\b[^=]*= '([^']+)'", text, re.MULTILINE))


def amd_gpus() -> int:
    """The AMD GPUs of this machine, whether torch can use them or not."""
    return _render_nodes() if Path("/dev/kfd").exists() else 0


def nvidia_gpus() -> int:
    """The NVIDIA GPUs of this machine, whether torch can use them or not."""
    listed = Path("/proc/driver/nvidia/gpus")
    if listed.is_dir():
        return len(list(listed.iterdir()))
    if Path("/dev/dxg").exists():  # Windows Subsystem for Linux has one device for all vendors
        from gearshift.training.resources.nvml import gpu_states

        return len(gpu_states(None))
    return 0


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
