"""Load by other programs during a comparison, which makes its ratios unreliable."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import psutil

_FREE_ENOUGH = 0.85
"""Share of the cores of a run that must be free; below it, times are unreliable."""
_IDLE = frozenset({"idle", "iowait", "guest", "guest_nice"})


@dataclass(frozen=True)
class Load:
    """Use of the machine by other programs."""

    others: float
    """Cores that other programs kept busy, on average."""
    cores: int
    """Of the whole machine."""

    def is_doubtful(self, wanted: int) -> bool:
        """Whether `wanted` cores were not free."""
        return self.cores - self.others < _FREE_ENOUGH * min(wanted, self.cores)


class Watch:
    """Measures the load from its construction on, without this process and its children."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._busy, self._own = _busy_s(), _own_s()

    def load(self) -> Load:
        """Load by other programs since construction."""
        seconds = max(time.monotonic() - self._began, 1e-3)
        others = (_busy_s() - self._busy) - (_own_s() - self._own)
        return Load(max(0.0, others / seconds), psutil.cpu_count() or 1)


def load_warnings(before: float | None, loads: Sequence[Load], wanted: int) -> Iterator[str]:
    """Warnings where `wanted` cores were not free before or during the runs."""
    if before is not None and before > wanted / 2:
        yield (
            f"the machine was busy before the first run: load average {before:.1f} on "
            f"{wanted} cores"
        )
    full = [load for load in loads if load.is_doubtful(wanted)]
    if full:
        low, high = min(item.others for item in full), max(item.others for item in full)
        took = f"{low:.1f}" if f"{low:.1f}" == f"{high:.1f}" else f"{low:.1f} to {high:.1f}"
        yield (
            f"other programs used {took} of {full[0].cores} cores during {len(full)} of "
            f"{len(loads)} runs: times and ratios are unreliable"
        )


def average() -> float | None:
    """Load average of the last minute; None where the system has none."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _busy_s() -> float:
    times = psutil.cpu_times()._asdict()
    return float(sum(seconds for name, seconds in times.items() if name not in _IDLE))


def _own_s() -> float:
    spent = [resource.getrusage(of) for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(item.ru_utime + item.ru_stime for item in spent)
