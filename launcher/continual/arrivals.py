"""The watched folder of a continual run: complete new files, and files that are still written."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from launcher.run_folder.experiences import Ledger
from launcher.run_folder.file_records import FileRecord, FileStamp, changed_files, record_files, stamp_of

_UNFINISHED = (".part", ".partial", ".tmp", ".temp", ".crdownload", ".download", ".swp", ".lock")
"""Endings of files that get another name when they are complete; also `~`."""
_MAX_SETTLE_TIMES = 10
"""Complete files wait for files that are still written, at most this many times `settle_s`."""


@dataclass(frozen=True)
class FolderScan:
    """The files of the folder at one moment, by their path below it."""

    complete: Mapping[str, FileStamp]
    growing: Mapping[str, FileStamp]
    """Files that may still be written."""


@dataclass
class FolderWatch:
    """Scans a folder; a file is complete when two scans `settle_s` apart find it unchanged.

    Hidden files and files with an ending of unfinished ones are ignored.
    """

    folder: Path
    settle_s: float
    _known: dict[str, tuple[FileStamp, float]] = field(default_factory=dict)
    """Each file, and since when it is unchanged."""

    def scan(self, now: float) -> FolderScan:
        """The files at `now`, in seconds of a monotonic clock. Reads the disk."""
        stamps, before = list_files(self.folder), self._known
        self._known = {name: (stamp, now) for name, stamp in stamps.items()}
        for name, (stamp, since) in before.items():
            if stamps.get(name) == stamp:
                self._known[name] = stamp, since
        is_complete = {name: now - since >= self.settle_s for name, (_, since) in self._known.items()}
        complete = {name: stamp for name, stamp in stamps.items() if is_complete[name]}
        growing = {name: stamp for name, stamp in stamps.items() if not is_complete[name]}
        return FolderScan(complete, growing)

    def mark_complete(self, names: Iterable[str]) -> None:
        """Take files as complete that were unchanged long before the first scan."""
        for name in names:
            self._known[name] = self._known[name][0], float("-inf")


@dataclass
class Arrivals:
    """Finds the files of a folder that the run has not trained on."""

    folder: Path
    settle_s: float
    min_files: int
    notes: list[str] = field(default_factory=list)
    """Lines for the user about ignored files; the caller clears it."""

    def __post_init__(self) -> None:
        self._watch = FolderWatch(self.folder, self.settle_s)
        self._ignored: dict[str, FileStamp] = {}
        self._ready_since: float | None = None
        self.changed_at: float | None = None
        """When a new or changed file was last seen."""
        self._last_scan: Mapping[str, FileStamp] = {}

    def first_files(self, now: float, wall: float) -> dict[str, FileRecord] | None:
        """The files at the start of the run; None while some are still being written.

        A file that was not modified for `settle_s` is complete at the first scan.
        """
        scan = self._watch.scan(now)
        ages = {name: wall - stamp.mtime_ns / 1e9 for name, stamp in scan.growing.items()}
        self._watch.mark_complete(name for name, age in ages.items() if age >= self.settle_s)
        scan = self._watch.scan(now)
        self._note_changes(scan, {}, now)
        if not scan.growing and not scan.complete:
            return {}
        if not self._is_ready(scan, scan.complete, now, least=1):
            return None
        return record_files(self.folder, scan.complete)

    def new_files(self, ledger: Ledger, now: float) -> dict[str, FileRecord]:
        """The files of the next experience; empty if it cannot start yet."""
        known, postponed = ledger.known_files(), ledger.postponed
        scan = self._watch.scan(now)
        growing = {n: s for n, s in scan.growing.items() if not _is_known(n, s, known)}
        complete = {
            name: stamp
            for name, stamp in scan.complete.items()
            if not _is_known(name, stamp, known) and self._ignored.get(name) != stamp
        }
        self._note_changes(FolderScan(complete, growing), known, now)
        complete = self._without_known(complete, known)
        tried = postponed.files if postponed is not None else {}
        fresh = {n: s for n, s in complete.items() if n not in tried or tried[n].stamp != s}
        if not self._is_ready(FolderScan(complete, growing), fresh, now, self.min_files):
            return {}
        files = self._without_copies(record_files(self.folder, complete), known)
        return files if any(name in fresh for name in files) else {}

    def _is_ready(self, scan: FolderScan, fresh: Mapping[str, FileStamp], now: float, least: int) -> bool:
        """Whether enough files are complete, and no other file is expected soon."""
        if len(fresh) < least:
            self._ready_since = None
            return False
        if self._ready_since is None:
            self._ready_since = now
        if scan.growing and now - self._ready_since < _MAX_SETTLE_TIMES * self.settle_s:
            return False
        self._ready_since = None
        return True

    def _note_changes(self, scan: FolderScan, known: Mapping[str, FileRecord], now: float) -> None:
        there = {n: s for n, s in {**scan.growing, **scan.complete}.items() if n not in known}
        if set(there.items()) - set(self._last_scan.items()):
            self.changed_at = now
        self._last_scan = there

    def _without_known(
        self, complete: Mapping[str, FileStamp], known: Mapping[str, FileRecord]
    ) -> dict[str, FileStamp]:
        """Without the files that were trained on; one that changed since is noted once."""
        unknown = {}
        for name, stamp in complete.items():
            if name not in known:
                unknown[name] = stamp
                continue
            self._ignored[name] = stamp
            if any(changed_files(self.folder, {name: known[name]})):
                self.notes.append(f"{name} changed after it was trained on: ignored")
        return unknown

    def _without_copies(
        self, files: Mapping[str, FileRecord], known: Mapping[str, FileRecord]
    ) -> dict[str, FileRecord]:
        """Without the files whose content was trained on under another name."""
        names = {file.digest: name for name, file in known.items()}
        distinct = {}
        for name, file in files.items():
            other = names.setdefault(file.digest, name)
            if other == name:
                distinct[name] = file
            else:
                self._ignored[name] = file.stamp
                self.notes.append(f"{name} has the same content as {other}: ignored")
        return distinct


def list_files(folder: Path) -> dict[str, FileStamp]:
    """The files below `folder` that may be complete, by their path, in order. Reads the disk."""
    stamps = {}
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.startswith(".") or name.lower().endswith((*_UNFINISHED, "~")):
                continue
            path = Path(root, name)
            if (stamp := stamp_of(path)) is not None:
                stamps[path.relative_to(folder).as_posix()] = stamp
    return stamps


def _is_known(name: str, stamp: FileStamp, known: Mapping[str, FileRecord]) -> bool:
    return name in known and known[name].stamp == stamp
