"""Which cores a rank computes on, and with how many threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

from engines.base import EngineError

VARIABLE = "OMP_NUM_THREADS"
_SPINS = "GOMP_SPINCOUNT"
_POLICY = "OMP_WAIT_POLICY"


def threads(asked: int | None, cores: int, ranks: int, environ: Mapping[str, str]) -> int:
    """Threads of one of `ranks` ranks that share `cores`: what was asked for, or an even share.

    A number of the person's own in OMP_NUM_THREADS is kept; 1 is not, for torchrun sets it
    unasked, and an optimizer on the CPU is then about ten times slower.
    """
    if asked is not None:
        return asked
    given = environ.get(VARIABLE, "")
    if given.isdigit() and int(given) > 1:
        return int(given)
    return max(1, cores // ranks)


def are_left_to_torch(settings: Any, ranks: int) -> bool:
    """Whether a run takes the threads that torch takes by itself: it runs in the first process."""
    engine, goes_on = settings.engine, settings.continual.enabled
    return ranks == 1 and engine.threads is None and not engine.max_restarts and not goes_on


def of_torch() -> int:
    """The threads that torch takes by itself. Imports torch."""
    import torch

    return torch.get_num_threads()


def share_politely(environ: MutableMapping[str, str]) -> None:
    """Let threads that wait for each other sleep soon, unless the person has said how they wait.

    GNU's OpenMP spins for milliseconds by itself. Beside one other busy program on two cores that
    made a training step of language:small 3.6 s in place of 0.24 s; on an idle machine it is no
    faster. To be called before torch is imported.
    """
    if _SPINS not in environ and _POLICY not in environ:
        environ[_SPINS] = "1000"


def use(asked: int | None) -> Callable[[], None]:
    """Let torch compute with `asked` threads, also where it was imported before; None: as it is.

    Gives what puts the number back.
    """
    import torch

    before = torch.get_num_threads()
    if asked is not None:
        torch.set_num_threads(asked)
    return lambda: torch.set_num_threads(before)


def bind(settings: Any, environ: Mapping[str, str]) -> None:
    """Pin this process to its even share of the cores it may use, where settings want that.

    `environ` tells its place among the ranks of the machine. Raises EngineError where the system
    cannot.
    """
    if not settings.engine.bind_cores:
        return
    if not hasattr(os, "sched_setaffinity"):
        raise EngineError("engine.bind_cores: this system cannot pin processes to cores")
    cores = sorted(os.sched_getaffinity(0))
    ranks = int(environ.get("LOCAL_WORLD_SIZE", 1))
    if ranks > 1 and len(cores) <= (os.cpu_count() or 1) // ranks:
        return  # Slurm has pinned it already
    share = max(1, len(cores) // ranks)
    first = int(environ.get("LOCAL_RANK", 0)) * share % len(cores)
    os.sched_setaffinity(0, cores[first : first + share])
