"""Memory limit and use of a container, and its kills, from Linux control groups."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import NamedTuple

MOUNT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
VMSTAT = Path("/proc/vmstat")
_MEMORY = {"memory.max": "memory.current", "memory.limit_in_bytes": "memory.usage_in_bytes"}
# Version 1 writes "no limit" as the largest number of whole pages.
_UNLIMITED = 1 << 60
_KILLS = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)
# Counts of memory.stat that the kernel takes back before it kills a process.
_DROPPABLE = re.compile(
    r"^(?:total_(?:in)?active_file|(?:in)?active_file|slab_reclaimable) (\d+)$", re.M
)


class Share(NamedTuple):
    """A limit and the use that counts against it, in bytes; the tightest is the least."""

    limit: int
    used: int


def memory(mount: Path = MOUNT) -> Share | None:
    """The tightest memory limit on this process, and the use of it; None: no limit.

    File pages that can be dropped are not counted as used, as in the kernel's MemAvailable.
    Source: Linux, Documentation/admin-guide/cgroup-v1/memory.rst and cgroup-v2.rst.
    """
    return _tightest(mount, _MEMORY)


def swap() -> Share | None:
    """The same of swap; None: no limit, or control groups of version 1."""
    return _tightest(MOUNT, {"memory.swap.max": "memory.swap.current"})


def oom_kills() -> int | None:
    """How many processes the kernel has killed because memory ran out; None: it does not tell.

    Those of this process's group; of the whole machine if that group does not count them. The
    kernel counts a kill before its victim ends.
    """
    files = []
    for group in _groups(MOUNT):
        files += [group / "memory.events", group / "memory.oom_control"]
    for file in (*files, VMSTAT):
        match = _KILLS.search(_text(file))
        if match is not None:
            return int(match[1])
    return None


def _groups(mount: Path) -> Iterator[Path]:
    """The folder of each memory group of this process, inner first; in a container, the mount."""
    for line in _text(MEMBERSHIP).splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root = mount  # version 2
        elif "memory" in controllers.split(","):
            root = mount / "memory"
        else:
            continue
        inside = PurePosixPath(path.lstrip("/"))
        for part in (inside, *inside.parents):
            yield root / part


def _tightest(mount: Path, files: Mapping[str, str]) -> Share | None:
    """The least limit in `files`, with that of its use; of those that exist and are not "max"."""
    shares = []
    for group in _groups(mount):
        dropped = 0
        if files is _MEMORY:
            stat = _text(group / "memory.stat")
            # Version 1 counts a group alone, and with "total_" those below it, too.
            dropped = sum(map(int, _DROPPABLE.findall(stat[max(stat.find("total_"), 0) :])))
        for limit_file, use_file in files.items():
            with suppress(ValueError):
                limit = int(_text(group / limit_file))
                used = int(_text(group / use_file))
                if 0 < limit < _UNLIMITED:
                    shares.append(Share(limit, max(0, used - dropped)))
    return min(shares, default=None)


def _text(file: Path) -> str:
    """The content of `file`; empty if it cannot be read, as on other systems than Linux."""
    with suppress(OSError):
        return file.read_text()
    return ""
