"""The CPU threads of a process that runs its optimizer in host memory."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch


def use_threads(wanted: int | None, local_size: int) -> Callable[[], None]:
    """Let torch use `wanted` threads, or this process's share of the cores; returns the undoing.

    torchrun sets OMP_NUM_THREADS=1, with which an optimizer on the CPU is about ten times slower.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(wanted or max(1, cores() // local_size))
    return lambda: torch.set_num_threads(before)


def cores() -> int:
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
