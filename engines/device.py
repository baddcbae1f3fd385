"""The hardware of a process: its device, CPU threads, host allocator and pinned memory."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gearshift.engines import environment
from gearshift.engines.base import EngineError

# The variables that restrict the devices of a process.
VISIBLE = {"cuda": "CUDA_VISIBLE_DEVICES", "xpu": "ZE_AFFINITY_MASK"}
# The variables that configure the allocator of device memory.
_ALLOCATOR = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")
_WSL_GPU = Path("/dev/dxg")  # The GPUs of the Windows Subsystem for Linux
# Of malloc.h.
_M_MMAP_THRESHOLD = -3
_MAPPED_BYTES = 2**20


def pick_device(setting: str, local_rank: int = 0, local_size: int = 1) -> torch.device:
    """The device of the process `local_rank` of `local_size` on this machine.

    `setting` is auto, cuda, xpu, mps or cpu; auto takes the first available one in that order.
    Raises EngineError if the device, or one for each process, is missing.
    """
    counts = devices()
    if setting == "auto":
        # One Apple GPU cannot be shared by processes that train together: no backend of
        # torch.distributed carries its tensors.
        if local_size > 1:
            counts["mps"] = 0
        wanted = next(kind for kind, count in counts.items() if count)
    elif setting in counts:
        wanted = setting
    else:
        raise EngineError(f"unknown device '{setting}'; allowed: auto, {', '.join(counts)}")
    if wanted == "cpu":
        return torch.device("cpu")
    count = counts[wanted]
    if count == 0:
        present = ", ".join(_describe(kind, number) for kind, number in counts.items() if number)
        raise EngineError(f"device '{wanted}' does not exist; this machine has: {present}")
    if count < local_size and environment.variables().get(VISIBLE.get(wanted, "")):
        # Each process has devices of its own (srun --gpus-per-task, a wrapper script). Where two
        # have the same one, NCCL refuses it and names both ranks.
        return torch.device(wanted, 0)
    if local_size > count:
        raise EngineError(
            f"device '{wanted}' for {local_size} processes: this machine has {count}; "
            f"start at most {count}, or choose device cpu"
        )
    if wanted == "mps":
        return torch.device("mps")
    return torch.device(wanted, local_rank)


def devices() -> dict[str, int]:
    """The number of devices of each kind this process can use, best kind first; one CPU."""
    counts = {"cuda": 0, "xpu": 0, "mps": 0, "cpu": 1}
    if torch.cuda.is_available():
        counts["cuda"] = torch.cuda.device_count()
    if torch.xpu.is_available():
        counts["xpu"] = torch.xpu.device_count()
    if torch.backends.mps.is_available():
        counts["mps"] = 1
    return counts


def use(device: torch.device) -> None:
    """Make `device` the default of allocations without an index, and set up its allocator.

    Expandable segments avoid fragments that are too small for the next allocation; under WSL2 their
    first allocation may fail (pytorch/pytorch#192330). A user's own settings of the allocator win.
    Source: PyTorch's docs, "CUDA semantics", memory management.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)
        is_set = any(name in environment.variables() for name in _ALLOCATOR)
        if sys.platform == "linux" and not is_set and not _WSL_GPU.exists():
            # Where there is a setter for all accelerators, the one for CUDA warns.
            setter = getattr(torch._C, "_accelerator_setAllocatorSettings", None)
            if setter is None:
                setter = torch.cuda.memory._set_allocator_settings
            setter("expandable_segments:True")
    elif device.type == "xpu":
        torch.xpu.set_device(device)


def use_threads(count: int | None, local_size: int) -> Callable[[], None]:
    """Let torch compute on the CPU with `count` threads; returns a function that restores them.

    None: the value of OMP_NUM_THREADS, which the launcher has set, else an even share of the cores
    of this process for `local_size` processes on this machine. torchrun starts workers with
    OMP_NUM_THREADS=1, which would leave the optimizer of an offloading engine on one core.
    """
    before = torch.get_num_threads()
    text = environment.variables().get("OMP_NUM_THREADS", "")
    share = max(1, cores() // local_size)
    if text.isdigit() and int(text) > 1:
        share = int(text)
    torch.set_num_threads(count or share)
    return lambda: torch.set_num_threads(before)


def cores() -> int:
    """The cores this process may use: those of its affinity mask, if the system has one."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def return_freed() -> bool:
    """Return each freed block of 1 MiB or more to the system at once; whether that is possible.

    glibc raises the size from which it does so up to 32 MiB as blocks are freed, and keeps smaller
    ones in a heap full of holes: in training the encoder of eeg_text 0.5 of 3.0 GiB. Lasts until
    the end of the process. Source: mallopt(3), M_MMAP_THRESHOLD.
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False  # another C library, with an allocator of its own
    return bool(library.mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES))


def trim_heap() -> None:
    """Return the free pages of glibc's heap to the system. Source: malloc_trim(3)."""
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)


def _describe(kind: str, count: int) -> str:
    return kind if count == 1 else f"{count} {kind}"


def allocate_pinned(size: int, device: torch.device) -> Tensor:
    """`size` bytes, pinned for a CUDA `device`; pages are allocated on first write.

    Not the pinned memory of torch, which rounds up to a power of two. Raises OSError if the system
    refuses the memory.
    """
    if size == 0:
        return torch.empty(0, dtype=torch.uint8)
    # Not torch.empty, which in deterministic mode fills them. Large pages would be slower: 7 s
    # where small ones took 0.6 s for 1.5 GB, in a virtual machine on Linux 6.18.
    pages = _Pages(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_DONTFORK"):
        # A forked loader worker would keep each page until it is copied once more.
        pages.madvise(mmap.MADV_DONTFORK)
    buffer = torch.frombuffer(pages, dtype=torch.uint8)
    if device.type == "cuda":
        pages.pin(buffer, device)
    return buffer


def pinned(tensor: Tensor, device: torch.device) -> Tensor:
    """A copy of `tensor` in memory that is pinned for `device`."""
    buffer = allocate_pinned(tensor.nbytes, device)
    return buffer.view(tensor.dtype).view(tensor.shape).copy_(tensor.detach())


@contextmanager
def pinned_exactly(device: torch.device) -> Iterator[None]:
    """Inside, tensors that are pinned for a CUDA `device` take no more than their size."""
    tensors: Any = Tensor
    original = tensors.pin_memory
    if device.type == "cuda":
        tensors.pin_memory = lambda tensor: pinned(tensor, device)
    try:
        yield
    finally:
        tensors.pin_memory = original


class _Pages(mmap.mmap):
    """Memory that can be pinned for a device, until just before it is unmapped."""

    _address: int | None = None

    def pin(self, buffer: Tensor, device: torch.device) -> None:
        """Pin `buffer`, the tensor of these pages; if that fails, copies are only slower."""
        address = buffer.data_ptr()
        if int(torch.cuda.cudart().cudaHostRegister(address, buffer.numel(), 0)) == 0:
            self._address = address
            return
        # The error stays until a check finds it, which otherwise is that of the next kernel.
        with suppress(RuntimeError):
            torch.zeros(1, device=device)

    def __del__(self) -> None:
        # A weak reference would be too late: mmap unmaps before it calls them.
        if self._address is not None:
            torch.cuda.cudart().cudaHostUnregister(self._address)
