"""CPU affinity and number of threads of a rank."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, MutableMapping, Sequence, Set
from contextlib import suppress
from pathlib import Path

from engines.base import EngineError
from launcher.config.schema import Settings

VARIABLE = "OMP_NUM_THREADS"
_SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
_SPINS = "GOMP_SPINCOUNT"
_POLICY = "OMP_WAIT_POLICY"
_OPENBLAS_SPINS = "OPENBLAS_THREAD_TIMEOUT"
"""Of the OpenBLAS in numpy and in scipy: its threads spin for 2 to this power of clock cycles."""


def threads(requested: int | None, cores: int, ranks: int, environ: Mapping[str, str]) -> int:
    """Threads of each of `ranks` ranks on `cores`: `requested`, OMP_NUM_THREADS, or an even share.

    OMP_NUM_THREADS=1 is ignored: torchrun sets it by default, and an optimizer on the CPU is then
    about ten times slower.
    """
    if requested is not None:
        return requested
    given = environ.get(VARIABLE, "")
    if given.isdigit() and int(given) > 1:
        return int(given)
    return max(1, cores // ranks)


def uses_torch_default(settings: Settings, ranks: int) -> bool:
    """Whether a run keeps the default threads of torch: it trains in the launcher's process."""
    engine, is_continual = settings.engine, settings.continual.enabled
    return ranks == 1 and engine.threads is None and not engine.max_restarts and not is_continual


def limit_spinning(environ: MutableMapping[str, str]) -> None:
    """Let waiting threads of OpenMP and OpenBLAS sleep soon, unless the user set how they wait.

    GNU OpenMP spins for milliseconds by default. With one other busy program on two cores a
    training step of language:small took 3.6 s instead of 0.24 s; on an idle machine it is no
    faster. OpenBLAS spins on all cores when it is imported. Call it before numpy is imported.
    """
    environ.setdefault(_OPENBLAS_SPINS, "4")
    if _SPINS not in environ and _POLICY not in environ:
        environ[_SPINS] = "1000"


def set_torch_threads(count: int | None) -> Callable[[], None]:
    """Let torch compute with `count` threads, also if it is imported already; None: no change.

    Returns a function that restores the previous number.
    """
    import torch

    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    return lambda: torch.set_num_threads(before)


def pin_to_cores(settings: Settings, environ: Mapping[str, str]) -> None:
    """Pin this process to its even share of the available cores, if engine.bind_cores is set.

    `environ` holds LOCAL_RANK and LOCAL_WORLD_SIZE. Raises EngineError if the system cannot.
    """
    if not settings.engine.bind_cores:
        return
    if not hasattr(os, "sched_setaffinity"):
        raise EngineError("engine.bind_cores: this system cannot pin processes to cores")
    available = os.sched_getaffinity(0)
    ranks = int(environ.get("LOCAL_WORLD_SIZE", 1))
    if ranks > 1 and len(available) <= (os.cpu_count() or 1) // ranks:
        return  # Slurm has pinned it already
    siblings = [_processors(Path(_SIBLINGS.format(number))) & available for number in available]
    cores = sorted({frozenset(s) for s in siblings if s} or {frozenset({n}) for n in available}, key=min)
    os.sched_setaffinity(0, share(cores, int(environ.get("LOCAL_RANK", 0)), ranks))


def share(cores: Sequence[Set[int]], rank: int, ranks: int) -> frozenset[int]:
    """The processors of local rank `rank` of `ranks`: whole cores, each the processors of one."""
    count = max(1, len(cores) // ranks)
    first = rank * count % len(cores)
    return frozenset().union(*cores[first : first + count])


def _processors(path: Path) -> set[int]:
    """The numbers in a list of Linux, such as 0-3,8; none if there is no such file."""
    numbers: set[int] = set()
    with suppress(OSError):
        for part in filter(None, path.read_text().strip().split(",")):
            first, _, last = part.partition("-")
            numbers.update(range(int(first), int(last or first) + 1))
    return numbers
