"""CPU affinity and number of threads of a rank."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, MutableMapping

from engines.base import EngineError
from launcher.config.schema import Settings

VARIABLE = "OMP_NUM_THREADS"
_SPINS = "GOMP_SPINCOUNT"
_POLICY = "OMP_WAIT_POLICY"


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


def torch_default() -> int:
    """The default number of threads of torch. Imports torch."""
    import torch

    return torch.get_num_threads()


def limit_spinning(environ: MutableMapping[str, str]) -> None:
    """Let waiting OpenMP threads sleep soon, unless the user set how they wait.

    GNU OpenMP spins for milliseconds by default. With one other busy program on two cores a
    training step of language:small took 3.6 s instead of 0.24 s; on an idle machine it is no
    faster. Call it before torch is imported.
    """
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
    cores = sorted(os.sched_getaffinity(0))
    ranks = int(environ.get("LOCAL_WORLD_SIZE", 1))
    if ranks > 1 and len(cores) <= (os.cpu_count() or 1) // ranks:
        return  # Slurm has pinned it already
    share = max(1, len(cores) // ranks)
    first = int(environ.get("LOCAL_RANK", 0)) * share % len(cores)
    os.sched_setaffinity(0, cores[first : first + share])
