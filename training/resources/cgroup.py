"""Memory limit and use of a container, and its kills, from Linux control groups."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

MOUNT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
VMSTAT = Path("/proc/vmstat")
# Version 1 writes "no limit" as the largest number of whole pages.
_UNLIMITED = 1 << 60
_KILLS = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class Share:
    """A limit and the use that counts against it, in bytes."""

    limit: int
    used: int

    @property
    def percent(self) -> float:
        """Use in percent of the limit."""
        return 100 * self.used / self.limit


@dataclass(frozen=True)
class _Layout:
    """File names of one version of control groups."""

    limit: str
    used: str
    swap_limit: str
    swap_used: str
    stat: tuple[str, ...]
    """Keys of memory.stat that count memory the kernel takes back before it kills a process."""
    swap_counts_memory: bool
    events: str
    """The file with the number of processes killed for lack of memory."""


_V2 = _Layout(
    "memory.max",
    "memory.current",
    "memory.swap.max",
    "memory.swap.current",
    ("active_file", "inactive_file", "slab_reclaimable"),
    False,
    "memory.events",
)
_V1 = _Layout(
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    "memory.memsw.limit_in_bytes",
    "memory.memsw.usage_in_bytes",
    ("total_active_file", "total_inactive_file"),
    True,
    "memory.oom_control",
)
_LAYOUTS = {1: _V1, 2: _V2}


def memory(mount: Path = MOUNT, membership: Path = MEMBERSHIP) -> Share | None:
    """The tightest memory limit on this process, and the use of it; None: no limit.

    File pages that can be dropped are not counted as used, as in the kernel's MemAvailable.
    Source: Linux, Documentation/admin-guide/cgroup-v1/memory.rst and cgroup-v2.rst.
    """
    shares = (_memory(folder, _LAYOUTS[v]) for folder, v in folders("memory", mount, membership))
    return min((s for s in shares if s is not None), key=lambda s: s.limit, default=None)


def swap(mount: Path = MOUNT, membership: Path = MEMBERSHIP) -> Share | None:
    """The tightest swap limit on this process, and the use of it; None: no limit."""
    shares = (_swap(folder, _LAYOUTS[v]) for folder, v in folders("memory", mount, membership))
    return min((s for s in shares if s is not None), key=lambda s: s.limit, default=None)


def oom_kills(
    mount: Path = MOUNT, membership: Path = MEMBERSHIP, vmstat: Path = VMSTAT
) -> int | None:
    """How many processes the kernel has killed because memory ran out; None: it does not tell.

    Those of this process's group; of the whole machine if that group does not count them. The
    kernel counts a kill before its victim ends.
    """
    groups = folders("memory", mount, membership)
    for file in (*(folder / _LAYOUTS[version].events for folder, version in groups), vmstat):
        with suppress(OSError):
            if match := _KILLS.search(file.read_text()):
                return int(match[1])
    return None


def folders(
    controller: str, mount: Path = MOUNT, membership: Path = MEMBERSHIP
) -> Iterator[tuple[Path, int]]:
    """Each group of `controller` that this process is in, inner first, and its version, 1 or 2.

    A container may see only the mount.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return  # not Linux
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, version = mount, 2
        elif controller in controllers.split(","):
            root, version = mount / controller, 1
        else:
            continue
        inside = PurePosixPath(path.lstrip("/"))
        for part in (inside, *inside.parents):
            yield root / part, version


def _memory(folder: Path, layout: _Layout) -> Share | None:
    limit, used = number(folder / layout.limit), number(folder / layout.used)
    if limit is None or used is None:
        return None
    return Share(limit, max(0, used - _droppable(folder, layout)))


def _swap(folder: Path, layout: _Layout) -> Share | None:
    limit, used = number(folder / layout.swap_limit), number(folder / layout.swap_used)
    if limit is None or used is None:
        return None
    if layout.swap_counts_memory:
        memory_limit, memory_used = number(folder / layout.limit), number(folder / layout.used)
        if memory_limit is None or memory_used is None:
            return None
        limit, used = limit - memory_limit, used - memory_used
    return Share(limit, max(0, used)) if limit > 0 else None


def _droppable(folder: Path, layout: _Layout) -> int:
    try:
        lines = (folder / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    numbers = dict(line.split(None, 1) for line in lines)
    return sum(int(numbers.get(key, 0)) for key in layout.stat)


def number(file: Path) -> int | None:
    """The number in `file`; None if it does not exist or means "no limit"."""
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() and int(text) < _UNLIMITED else None
