"""CPU use, in percent of the affinity mask or of a container's quota, and its temperature."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from training.resources import cgroup

_LEAST_S = 0.5
"""Shorter intervals are too coarse: the kernel counts in hundredths of a second."""
_SENSORS = (*("coretemp", "k10temp", "zenpower"), *("cpu_thermal", "cpu-thermal", "soc_thermal", "acpitz"))
"""Names of the sensors of processors in Linux, from the most exact to the least."""
Busy = tuple[float, float, float]
"""A moment in seconds, the seconds of CPU time used until then, and the cores that may be used."""


def count() -> Busy:
    """CPU time used until now: of the quota if there is one, else of the affinity mask.

    A quota counts the processes of its group, the affinity mask all processes.
    """
    if quota := of_quota():
        return quota
    times = psutil.cpu_times(percpu=True)
    allowed = [times[core] for core in _allowed() if core < len(times)] or times
    # Not busy: idle, iowait; guest time is included in user time.
    not_busy = ("idle", "iowait", "guest", "guest_nice")
    busy = sum(sum(core) - sum(getattr(core, name, 0.0) for name in not_busy) for core in allowed)
    return time.monotonic(), busy, len(allowed)


def of_quota(mount: Path = cgroup.MOUNT, membership: Path = cgroup.MEMBERSHIP) -> Busy | None:
    """The use of a control group's quota; None if that allows all cores of the affinity mask.

    Source: Linux, Documentation/admin-guide/cgroup-v2.rst.
    """
    quotas = []
    for folder, version in cgroup.folders("cpu", mount, membership):
        with suppress(OSError, ValueError):
            quota, period = (folder / "cpu.max").read_text().split()
            stat = (folder / "cpu.stat").read_text().split()
            if version == 2 and quota != "max":
                used = int(stat[stat.index("usage_usec") + 1]) / 1e6
                quotas.append((time.monotonic(), used, int(quota) / int(period)))
    tightest = min(quotas, key=lambda busy: busy[2], default=None)
    return tightest if tightest is not None and tightest[2] < len(_allowed()) else None


class CpuUse:
    def __init__(self, count: Callable[[], Busy] = count) -> None:
        self._count = count
        self._before: Busy | None = None
        self._percent: float | None = None

    def percent(self) -> float | None:
        """Since the last call that is at least half a second old; None: the first call."""
        at, busy, cores = now = self._count()
        if self._before is None or self._before[2] != cores:
            self._before = now
        elif (seconds := at - self._before[0]) >= _LEAST_S:
            self._percent = min(100.0, max(0.0, 100 * (busy - self._before[1]) / seconds / cores))
            self._before = now
        return self._percent


def cpu_celsius() -> float | None:
    """The hottest sensor of the processor in degrees Celsius.

    None where the system reports none: macOS, Windows, most virtual machines and containers.
    """
    try:
        sensors = psutil.sensors_temperatures()
    except (OSError, AttributeError):
        return None
    for name in _SENSORS:
        # A sensor that is not connected gives other values.
        if plausible := [s.current for s in sensors.get(name, ()) if 1 < s.current < 150]:
            return max(plausible)
    return None


def _allowed() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
