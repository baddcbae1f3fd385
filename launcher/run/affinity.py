"""CPU affinity and number of threads of a rank."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from gearshift.engines.base import EngineError
from gearshift.launcher.config.schema import Settings

VARIABLE = "OMP_NUM_THREADS"
_SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
_SPINS = "GOMP_SPINCOUNT"
_POLICY = "OMP_WAIT_POLICY"
_OPENBLAS_SPINS = "OPENBLAS_THREAD_TIMEOUT"
"""Of the OpenBLAS in numpy and in scipy: its threads spin for 2 to this power of clock cycles."""


def threads(
    engine: Any, cores: int, ranks: int, environ: Mapping[str, str], is_continual: bool
) -> int | None:
    """Threads of each of `ranks` ranks on `cores`.

    They are engine.threads, OMP_NUM_THREADS, or an even share. OMP_NUM_THREADS=1 is ignored:
    torchrun sets it by default, and an optimizer on the CPU is then about ten times slower. None:
    the default of torch, for a run in the launcher's own process.
    """
    if engine.threads:
        return int(engine.threads)
    if ranks == 1 and not engine.max_restarts and not is_continual:
        return None
    count = environ.get(VARIABLE, "")
    if count.isdigit() and int(count) > 1:
        return int(count)
    return max(1, cores // ranks)


def limit_spinning(environ: MutableMapping[str, str]) -> None:
    """Let waiting threads of OpenMP and OpenBLAS sleep soon, unless the user set how they wait.

    GNU OpenMP spins for milliseconds by default. With one other busy program on two cores a
    training step of language:small took 3.6 s instead of 0.24 s; on an idle machine it is no
    faster. OpenBLAS spins on all cores when it is imported. Call it before numpy is imported.
    """
    environ.setdefault(_OPENBLAS_SPINS, "4")
    if _SPINS not in environ and _POLICY not in environ:
        environ[_SPINS] = "1000"


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
    # The threads of a core have the same siblings: a rank gets whole cores.
    processors = sorted(available, key=lambda number: (_siblings(number), number))
    os.sched_setaffinity(0, share(processors, int(environ.get("LOCAL_RANK", 0)), ranks))


def share(processors: Sequence[int], rank: int, ranks: int) -> list[int]:
    """The processors of local rank `rank` of `ranks`: neighbours, as many each, at least one."""
    count = max(1, len(processors) // ranks)
    first = rank * count % len(processors)
    return [*processors[first : first + count]]


def _siblings(number: int) -> int:
    """The first processor of the same core, from a list of Linux such as 0-1 or 0,8."""
    with suppress(OSError, ValueError):
        siblings = Path(_SIBLINGS.format(number)).read_text()
        return int(re.split("[-,]", siblings.strip())[0])
    return number
