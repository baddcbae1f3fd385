"""Memory limit and use of a container, and its kills, from Linux control groups."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

MOUNT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
VMSTAT = Path("/proc/vmstat")
# Version 1 writes "no limit" as the largest number of whole pages.
_UNLIMITED = 1 << 60
_KILLS = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)
# Limit and use by version.
_MEMORY = {1: ("memory.limit_in_bytes", "memory.usage_in_bytes"), 2: ("memory.max", "memory.current")}
_SWAP = ("memory.swap.max", "memory.swap.current")
_KILL_COUNT = {1: "memory.oom_control", 2: "memory.events"}
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
    return _tightest(_share(folder, *_MEMORY[version]) for folder, version in _folders(mount, membership))


def swap(mount: Path = MOUNT, membership: Path = MEMBERSHIP) -> Share | None:
    """The same of swap; None: no limit, or control groups of version 1."""
    return _tightest(_share(folder, *_SWAP) for folder, _ in _folders(mount, membership))


def oom_kills(mount: Path = MOUNT, membership: Path = MEMBERSHIP, vmstat: Path = VMSTAT) -> int | None:
    """How many processes the kernel has killed because memory ran out; None: it does not tell.

    Those of this process's group; of the whole machine if that group does not count them. The
    kernel counts a kill before its victim ends.
    """
    groups = _folders(mount, membership)
    for file in (*(folder / _KILL_COUNT[version] for folder, version in groups), vmstat):
        with suppress(OSError):
            if match := _KILLS.search(file.read_text()):
                return int(match[1])
    return None


def _folders(mount: Path, membership: Path) -> Iterator[tuple[Path, int]]:
    """Each memory group that this process is in, inner first, and its version, 1 or 2.

    A container may see only the mount.
    """
    lines: list[str] = []
    with suppress(OSError):  # not Linux
        lines = membership.read_text().splitlines()
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root, version = (mount / "memory", 1) if controllers else (mount, 2)
        inside = PurePosixPath(path.lstrip("/"))
        for part in (inside, *inside.parents):
            yield root / part, version


def _share(folder: Path, limit_file: str, use_file: str) -> Share | None:
    """None: there is no limit, or the files do not exist."""
    with suppress(OSError, ValueError):  # "max" is no number
        limit, used = (int((folder / name).read_text()) for name in (limit_file, use_file))
        if "swap" not in use_file:
            used = max(0, used - _droppable(folder))
        return Share(limit, used) if 0 < limit < _UNLIMITED else None
    return None


def _droppable(folder: Path) -> int:
    with suppress(OSError):
        text = (folder / "memory.stat").read_text()
        # Version 1 counts a group alone, and with "total_" those below it, too.
        return sum(map(int, _DROPPABLE.findall(text[max(text.find("total_"), 0) :])))
    return 0


def _tightest(shares: Iterable[Share | None]) -> Share | None:
    return min(filter(None, shares), key=lambda share: share.limit, default=None)
