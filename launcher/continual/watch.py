"""Which files of a folder are complete, and which are still being written."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_ENDINGS = (".part", ".partial", ".tmp", ".temp", ".crdownload", ".download", ".swp", ".lock", "~")
"""Of files that are to get another name when they are whole."""


@dataclass(frozen=True)
class Stamp:
    """What a look at a file tells without reading it."""

    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Seen:
    """What one look at the folder found, by the path below it."""

    complete: Mapping[str, Stamp]
    growing: Mapping[str, Stamp]
    """Of which it is not known yet."""


@dataclass
class Watch:
    """Looks at a folder again and again; a file that two looks found the same is complete.

    Hidden files and those with the name of an unfinished one are not looked at: who renames a file
    when it is whole has it taken whole, at once or later.
    """

    folder: Path
    settle_s: float
    """Seconds between the two looks, at least."""
    _known: dict[str, tuple[Stamp, float]] = field(default_factory=dict)

    def look(self, now: float) -> Seen:
        """What is there `now`, in seconds of any clock that only goes on. Reads the disk."""
        found = files(self.folder)
        known = {name: (stamp, self._since(name, stamp, now)) for name, stamp in found.items()}
        self._known = known
        complete = {
            name: stamp for name, (stamp, since) in known.items() if now - since >= self.settle_s
        }
        return Seen(complete, {name: found[name] for name in found if name not in complete})

    def trust(self, names: Iterable[str]) -> None:
        """Take files as complete that were there long before the first look."""
        for name in names:
            if name in self._known:
                self._known[name] = self._known[name][0], float("-inf")

    def _since(self, name: str, stamp: Stamp, now: float) -> float:
        before = self._known.get(name)
        return before[1] if before is not None and before[0] == stamp else now


def files(folder: Path) -> dict[str, Stamp]:
    """The files below `folder` that have the name of a whole one, by their path, in order."""
    found = {}
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.startswith(".") or name.lower().endswith(_ENDINGS):
                continue
            path = Path(root, name)
            if (stamp := stamp_of(path)) is not None:
                found[path.relative_to(folder).as_posix()] = stamp
    return found


def stamp_of(path: Path) -> Stamp | None:
    """Size and time of a file; None: it is not there, or is no file."""
    try:
        if not path.is_file():
            return None
        found = path.stat()
    except OSError:  # it went while we looked
        return None
    return Stamp(found.st_size, found.st_mtime_ns)
