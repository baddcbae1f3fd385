"""Whether others used the machine meanwhile, which makes ratios doubtful."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import psutil

_FREE_ENOUGH = 0.85
"""Of the cores that a run may use; below, its times are another program's, too."""
_IDLE = frozenset({"idle", "iowait", "guest", "guest_nice"})


@dataclass(frozen=True)
class Load:
    """What others took of the machine."""

    others: float
    """Cores that were busy with something else, on average."""
    cores: int
    """Of the whole machine."""

    def is_doubtful(self, wanted: int) -> bool:
        """Whether `wanted` cores were not free."""
        return self.cores - self.others < _FREE_ENOUGH * min(wanted, self.cores)


class Watch:
    """Made before a run; what this process and those it waited for took since is no one else's."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._busy, self._own = _busy_s(), _own_s()

    def load(self) -> Load:
        """What others took since then."""
        seconds = max(time.monotonic() - self._began, 1e-3)
        others = (_busy_s() - self._busy) - (_own_s() - self._own)
        return Load(max(0.0, others / seconds), psutil.cpu_count() or 1)


def load_warnings(before: float | None, loads: Sequence[Load], wanted: int) -> Iterator[str]:
    """What to say of a machine on which `wanted` cores were not free, before or meanwhile."""
    if before is not None and before > wanted / 2:
        yield (
            f"the machine was busy before the first run: {before:.1f} processes wanted its "
            f"{wanted} cores in the last minute"
        )
    full = [load for load in loads if load.is_doubtful(wanted)]
    if full:
        low, high = min(one.others for one in full), max(one.others for one in full)
        took = f"{low:.1f}" if f"{low:.1f}" == f"{high:.1f}" else f"{low:.1f} to {high:.1f}"
        yield (
            f"during {len(full)} of {len(loads)} runs others used {took} of {full[0].cores} cores: "
            "times and their ratios are doubtful"
        )


def average() -> float | None:
    """How many processes wanted a core in the last minute; None where the system does not tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _busy_s() -> float:
    times = psutil.cpu_times()._asdict()
    return float(sum(seconds for name, seconds in times.items() if name not in _IDLE))


def _own_s() -> float:
    spent = [resource.getrusage(of) for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in spent)
