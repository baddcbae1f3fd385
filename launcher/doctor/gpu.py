"""Checks of GPUs, their driver and NCCL, from what the system and torch say."""

from __future__ import annotations

import platform
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.base import environment
from launcher.config import machine
from launcher.doctor.result import Check, failure, ok, warning
from training.logging.quantities import size

DRIVER = Path("/proc/driver/nvidia/version")
_OLDEST_DRIVER = {"11": 450, "12": 525, "13": 580}
"""By the major version of CUDA. Source: NVIDIA, CUDA Toolkit release notes, minor version
compatibility."""
_TORCH = "install torch for your GPU: https://pytorch.org/get-started/locally"


@dataclass(frozen=True)
class Gpus:
    """The GPUs of a machine, as the system and torch see them."""

    nvidia: int = 0
    """That the system has."""
    amd: int = 0
    visible: str | None = None
    """CUDA_VISIBLE_DEVICES."""
    driver: str | None = None
    """Version of NVIDIA's driver; None: unknown."""
    build: str | None = None
    """What torch was built for: `CUDA 12.8`, `ROCm 6.4`, `XPU`, `MPS`; None: only for CPUs."""
    names: Sequence[str] = ()
    """That torch can use."""
    nccl: str | None = None
    """Version; None: torch was built without it."""
    memory_bytes: int | None = None
    """Of the smallest one; None: unknown."""


def read_gpus() -> Gpus:
    """The GPUs of this machine. Imports torch and starts its GPU runtime."""
    import torch

    build, names = None, []
    if torch.version.cuda is not None:
        build = f"CUDA {torch.version.cuda}"
    elif torch.version.hip is not None:
        build = f"ROCm {torch.version.hip}"
    elif torch.xpu._is_compiled():
        build = "XPU"
    elif torch.backends.mps.is_built():
        build = "MPS"
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    elif torch.xpu.is_available():
        names = [torch.xpu.get_device_name(n) for n in range(torch.xpu.device_count())]
    elif torch.backends.mps.is_available():
        names = [f"Apple {platform.machine()}"]
    has_nccl = torch.distributed.is_available() and torch.distributed.is_nccl_available()
    nccl = ".".join(map(str, torch.cuda.nccl.version())) if has_nccl else None
    return Gpus(
        machine.nvidia_gpus(),
        machine.amd_gpus(),
        environment.visible_cuda_devices(),
        read_driver(DRIVER),
        build,
        names,
        nccl,
        machine.detect_machine().gpu_bytes,
    )


def read_driver(file: Path) -> str | None:
    """The version of NVIDIA's driver in its `file`; None: there is none."""
    try:
        match = re.search(r"Kernel Module\b.*?\s(\d+(?:\.\d+)+)", file.read_text())
    except OSError:
        return None
    return match[1] if match else None


def check_gpu(gpus: Gpus) -> Check:
    """Whether torch can use the GPUs of this machine."""
    name, boards = "gpu", gpus.nvidia + gpus.amd
    if gpus.names:
        counts = Counter(gpus.names)
        listed = ", ".join(f"{count} × {kind}" for kind, count in counts.items())
        of = "GPU memory unknown" if gpus.memory_bytes is None else size(gpus.memory_bytes)
        return ok(name, f"{listed}, {of}; torch for {gpus.build}")
    kind = "NVIDIA" if gpus.nvidia else "AMD"
    if boards and machine.visible(boards, gpus.visible) == 0:
        text = f"CUDA_VISIBLE_DEVICES={gpus.visible} hides all {boards}: training on the CPU"
        return warning(name, text, "unset CUDA_VISIBLE_DEVICES")
    if boards and (gpus.build or "MPS") == "MPS":
        return warning(name, f"{boards} × {kind}, but torch was built for CPUs only", _TORCH)
    if boards:
        text = f"torch for {gpus.build} cannot use {boards} × {kind}"
        return failure(name, text, f"check the driver, nvidia-smi or rocm-smi; {_TORCH}")
    if gpus.build == "MPS":
        text = "torch for MPS finds no GPU: training on the CPU"
        return warning(name, text, "update macOS; use a native Python, not one for x86_64")
    return ok(name, "none: training on the CPU")


def check_driver(gpus: Gpus) -> Check:
    """Whether NVIDIA's driver is new enough for the CUDA of torch."""
    name, build = "driver", gpus.build or ""
    if not gpus.nvidia:
        return ok(name, "not needed: no NVIDIA GPU")
    if gpus.driver is None:
        if gpus.names:
            return ok(name, "version unknown; torch can use the GPU")
        return failure(name, "NVIDIA's driver is not loaded", "install it; see nvidia-smi")
    wanted = _OLDEST_DRIVER.get(build.removeprefix("CUDA ").partition(".")[0])
    if wanted is not None and int(gpus.driver.partition(".")[0]) < wanted:
        text = f"{gpus.driver} is too old for {build}, which needs {wanted} or newer"
        return failure(
            name, text, f"update the driver, or install torch for an older CUDA: {_TORCH}"
        )
    return ok(name, gpus.driver)


def check_nccl(gpus: Gpus) -> Check:
    """Whether several GPUs can communicate by NCCL, on AMD by RCCL."""
    if gpus.nccl is not None and gpus.names:
        return ok("nccl", gpus.nccl)
    if len(gpus.names) > 1 and (gpus.build or "").startswith(("CUDA", "ROCm")):
        text = f"torch has no NCCL: {len(gpus.names)} GPUs cannot train together"
        return warning("nccl", text, _TORCH)
    return ok("nccl", "not needed: no several GPUs")
