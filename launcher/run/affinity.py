"""The cores that a rank is pinned to, with engine.bind_cores."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from gearshift.engines.base import EngineError

_SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


def pin_to_cores(environ: Mapping[str, str]) -> None:
    """Pin this process to its even share of the available cores.

    `environ` holds LOCAL_RANK and LOCAL_WORLD_SIZE. Raises EngineError if the system cannot.
    """
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
