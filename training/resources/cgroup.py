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
# Counts of memory.stat that the kernel takes back before it kills a process.
_DROPPABLE = re.compile(r"^(?:total_(?:in)?active_file|(?:in)?active_file|slab_reclaimable) (\d+)$", re.M)


@dataclass(frozen=True)
class Share:
    """A limit and the use that counts against it, in bytes."""

    limit: int
    used: int

    @property
    def percent(self) -> float:
        """Use in percent of the limit."""
        return 100 * self.used / self.limit


def memory(mount: Path = MOUNT, membership: Path = MEMBERSHIP) -> Share | None:
    """The tightest memory limit on this process, and the use of it; None: no limit.

    File pages that can be dropped are not counted as used, as in the kernel's MemAvailable.
    Source: Linux, Documentation/admin-guide/cgroup-v1/memory.rst and cgroup-v2.rst.
    """
    shares = []
    for group in _groups(mount, membership):
        stat = _text(group / "memory.stat")
        # Version 1 counts a group alone, and with "total_" those below it, too.
        dropped = sum(map(int, _DROPPABLE.findall(stat[max(stat.find("total_"), 0) :])))
        shares += _shares(group, "memory.max", "memory.current", dropped)
        shares += _shares(group, "memory.limit_in_bytes", "memory.usage_in_bytes", dropped)
    return min(shares, key=lambda share: share.limit, default=None)


def swap(mount: Path = MOUNT, membership: Path = MEMBERSHIP) -> Share | None:
    """The same of swap; None: no limit, or control groups of version 1."""
    groups = _groups(mount, membership)
    shares = [s for group in groups for s in _shares(group, "memory.swap.max", "memory.swap.current")]
    return min(shares, key=lambda share: share.limit, default=None)


def oom_kills(mount: Path = MOUNT, membership: Path = MEMBERSHIP, vmstat: Path = VMSTAT) -> int | None:
    """How many processes the kernel has killed because memory ran out; None: it does not tell.

    Those of this process's group; of the whole machine if that group does not count them. The
    kernel counts a kill before its victim ends.
    """
    names = ("memory.events", "memory.oom_control")
    files = [group / name for group in _groups(mount, membership) for name in names]
    counts = (match[1] for file in (*files, vmstat) if (match := _KILLS.search(_text(file))))
    return next(map(int, counts), None)


def _groups(mount: Path, membership: Path) -> Iterator[Path]:
    """The folder of each memory group of this process, inner first; a container may see only the mount."""
    for line in _text(membership).splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers or "memory" in controllers.split(","):  # of version 2, or of memory
            inside = PurePosixPath(path.lstrip("/"))
            for part in (inside, *inside.parents):
                yield (mount / "memory" if controllers else mount) / part


def _shares(group: Path, limit_file: str, use_file: str, dropped: int = 0) -> list[Share]:
    """The limit of `group` if the files exist and have one, which "max" is not."""
    with suppress(ValueError):
        limit, used = (int(_text(group / name)) for name in (limit_file, use_file))
        return [Share(limit, max(0, used - dropped))] if 0 < limit < _UNLIMITED else []
    return []


def _text(file: Path) -> str:
    """The content of `file`; empty if it cannot be read, as on other systems than Linux."""
    with suppress(OSError):
        return file.read_text()
    return ""
