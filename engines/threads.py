"""How many CPU threads a process may compute with."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch


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
