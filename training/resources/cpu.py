"""CPU use, in percent of the affinity mask or of a container's quota, and its temperature."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from training.resources import cgroup

_LEAST_S = 0.5
"""Shorter intervals are too coarse: the kernel counts in hundredths of a second."""
_SENSORS = (*("coretemp", "k10temp", "zenpower"), *("cpu_thermal", "cpu-thermal", "soc_thermal", "acpitz"))
"""Names of the sensors of processors in Linux, from the most exact to the least."""
_PLAUSIBLE = (1.0, 150.0)
"""Degrees Celsius: a sensor that is not connected gives others."""


@dataclass(frozen=True)
class Busy:
    """CPU time used until a moment; it only grows."""

    at_s: float
    busy_s: float
    """Seconds of CPU time used, over all of `cores`."""
    cores: float
    """Cores that may be used at once; a quota may be less than one."""


def count() -> Busy:
    """CPU time used until now: of the quota if there is one, else of the affinity mask.

    A quota counts the processes of its group, the affinity mask all processes.
    """
    if quota := of_quota():
        return quota
    cores = _allowed()
    times = psutil.cpu_times(percpu=True)
    allowed = [times[core] for core in cores if core < len(times)] or times
    # Not busy: idle, iowait; guest time is included in user time.
    not_busy = ("idle", "iowait", "guest", "guest_nice")
    busy = sum(sum(core) - sum(getattr(core, name, 0.0) for name in not_busy) for core in allowed)
    return Busy(time.monotonic(), busy, len(allowed))


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
                quotas.append(Busy(time.monotonic(), used, int(quota) / int(period)))
    tightest = min(quotas, key=lambda busy: busy.cores, default=None)
    return tightest if tightest is not None and tightest.cores < len(_allowed()) else None


class CpuUse:
    """CPU use in percent, from one call to the next."""

    def __init__(self, count: Callable[[], Busy] = count) -> None:
        self._count = count
        self._before: Busy | None = None
        self._percent: float | None = None

    def percent(self) -> float | None:
        """Since the last call that is at least half a second old; None: the first call."""
        now, before = self._count(), self._before
        if before is None or before.cores != now.cores:
            self._before = now
        elif now.at_s - before.at_s >= _LEAST_S:
            used = (now.busy_s - before.busy_s) / (now.at_s - before.at_s) / now.cores
            self._percent = min(100.0, max(0.0, 100 * used))
            self._before = now
        return self._percent


def cpu_celsius() -> float | None:
    """The hottest sensor of the processor in degrees Celsius.

    None where the system reports none: macOS, Windows, most virtual machines and containers.
    """
    read = getattr(psutil, "sensors_temperatures", None)
    try:
        sensors = read() if read else {}
    except OSError:
        return None
    low, high = _PLAUSIBLE
    for name in _SENSORS:
        plausible = [s.current for s in sensors.get(name, ()) if low < s.current < high]
        if plausible:
            return max(plausible)
    return None


def _allowed() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
