"""Which device a process computes on."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable

import torch

from engines.base import EngineError

_VISIBLE = {"cuda": "CUDA_VISIBLE_DEVICES", "xpu": "ZE_AFFINITY_MASK"}
"""The variables that name the devices which a process sees."""


def pick_device(setting: str, local_rank: int = 0, local_size: int = 1) -> torch.device:
    """The device of the process `local_rank` of `local_size` on this machine.

    `setting` is auto, cuda, xpu, mps or cpu; auto takes the first of that order that is there.
    Raises EngineError where the device, or one for each process, is missing.
    """
    counts = devices()
    if setting == "auto":
        # One Apple GPU cannot be shared by processes that train together: no backend of
        # torch.distributed carries its tensors.
        wanted = next(
            kind for kind in counts if counts[kind] and (kind != "mps" or local_size == 1)
        )
    elif setting in counts:
        wanted = setting
    else:
        raise EngineError(f"device '{setting}' is not known; legal: auto, {', '.join(counts)}")
    if wanted == "cpu":
        return torch.device("cpu")
    there = counts[wanted]
    if there == 0:
        present = ", ".join(_describe(kind, count) for kind, count in counts.items() if count)
        raise EngineError(f"device '{wanted}' is not here; this machine has: {present}")
    if 0 < there < local_size and os.environ.get(_VISIBLE.get(wanted, ""), ""):
        # Somebody gives each process devices of its own (srun --gpus-per-task, a wrapper script).
        # Whether it is so, the ranks find out when they meet: engines/rendezvous.py.
        return torch.device(wanted, 0)
    if local_size > there or local_rank >= there:
        raise EngineError(
            f"device '{wanted}' for {local_size} processes: this machine has {there}; "
            f"start at most {there}, or choose device cpu"
        )
    return torch.device("mps") if wanted == "mps" else torch.device(wanted, local_rank)


def devices() -> dict[str, int]:
    """How many devices of each kind this process can use, best kind first; there is one CPU."""
    return {
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "xpu": torch.xpu.device_count() if torch.xpu.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
        "cpu": 1,
    }


def use(device: torch.device) -> None:
    """Make `device` the one that allocations without an index go to."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    elif device.type == "xpu":
        torch.xpu.set_device(device)


def identity(device: torch.device) -> str:
    """What the very piece of hardware is called, whichever number it has; empty: not known."""
    if device.type != "cuda":
        return ""
    entries = os.environ.get(_VISIBLE["cuda"], "").split(",")
    own = entries[device.index or 0].strip() if (device.index or 0) < len(entries) else ""
    if own.startswith("MIG-"):  # several of them are parts of one GPU
        return own
    return str(getattr(torch.cuda.get_device_properties(device), "uuid", ""))


def _describe(kind: str, count: int) -> str:
    return kind if count == 1 else f"{count} {kind}"


def use_threads(told: int | None, local_size: int) -> Callable[[], None]:
    """Let torch compute on the CPU with `told` threads; what is returned puts the number back.

    None: as many as OMP_NUM_THREADS says, for the launcher has looked; else an even share of the
    cores that this process may use, for `local_size` processes on this machine. torchrun starts
    workers with OMP_NUM_THREADS=1, which would leave the optimizer of an offloading engine on one
    core.
    """
    before = torch.get_num_threads()
    given = os.environ.get("OMP_NUM_THREADS", "")
    shared = int(given) if given.isdigit() and int(given) > 1 else max(1, cores() // local_size)
    torch.set_num_threads(told or shared)
    return lambda: torch.set_num_threads(before)


def cores() -> int:
    """The cores this process may use: those of its affinity mask, where the system has one."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# Of malloc.h.
_M_MMAP_THRESHOLD = -3
_MAPPED_BYTES = 2**20


def return_freed() -> bool:
    """From now on give each freed block of 1 MiB or more back at once; whether that can be told.

    glibc raises the size from which it does so up to 32 MiB as blocks are freed, and keeps smaller
    ones in a heap full of holes: in training the encoder of eeg_text 0.5 of 3.0 GiB. It holds to
    the end of the process. Source: mallopt(3), M_MMAP_THRESHOLD.
    """
    if sys.platform != "linux":
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False  # another C library, with an allocator of its own
    return bool(library.mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES))
