"""The watched folder of a continual run: complete new files, and files that are still written."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from launcher.run_folder.experiences import Ledger
from launcher.run_folder.file_records import FileRecord, FileStamp, changed_files, record_files, stamp_of

_UNFINISHED = (".part", ".partial", ".tmp", ".temp", ".crdownload", ".download", ".swp", ".lock", "~")
"""Endings of files that get another name when they are complete."""
_MAX_SETTLE_TIMES = 10
"""Complete files wait for files that are still written, at most this many times `settle_s`."""
Files = Mapping[str, FileStamp]
"""Files by their path below the folder."""


@dataclass
class Arrivals:
    """Finds the files of a folder that the run has not trained on.

    A file is complete when it is unchanged for `settle_s`, by its change time: no program sets that. Hidden
    files and files with an ending of unfinished ones are ignored. `now` is in seconds since the epoch.
    """

    folder: Path
    settle_s: float
    min_files: int
    notes: list[str] = field(default_factory=list)
    """Lines for the user about ignored files; the caller clears it."""

    def __post_init__(self) -> None:
        self._ignored: dict[str, FileStamp] = {}
        self._ready_since: float | None = None
        self.changed_at: float | None = None
        """When a new or changed file was last seen."""
        self._last_scan: Files = {}

    def first_files(self, now: float) -> dict[str, FileRecord] | None:
        """The files at the start of the run; None while some are still being written."""
        complete, growing = self._scan({}, now)
        if not growing and not complete:
            return {}
        return record_files(self.folder, complete) if self._is_ready(growing, complete, now, 1) else None

    def new_files(self, ledger: Ledger, now: float) -> dict[str, FileRecord]:
        """The files of the next experience; empty if it cannot start yet."""
        known, postponed = ledger.known_files(), ledger.postponed
        complete, growing = self._scan(known, now)
        complete = self._without_known(complete, known)
        tried = postponed.files if postponed is not None else {}
        fresh = {n: s for n, s in complete.items() if n not in tried or tried[n].stamp != s}
        if not self._is_ready(growing, fresh, now, self.min_files):
            return {}
        files = self._without_copies(record_files(self.folder, complete), known)
        return files if any(name in fresh for name in files) else {}

    def _scan(self, known: Mapping[str, FileRecord], now: float) -> tuple[Files, Files]:
        """The complete files and the growing ones, without `known` and ignored ones."""
        stamps = {
            name: stamp
            for name, stamp in list_files(self.folder).items()
            if self._ignored.get(name) != stamp and not (name in known and known[name].stamp == stamp)
        }
        new = {name: stamp for name, stamp in stamps.items() if name not in known}
        if set(new.items()) - set(self._last_scan.items()):
            self.changed_at = now
        self._last_scan = new
        growing = {name: s for name, s in stamps.items() if now - s.ctime_ns / 1e9 < self.settle_s}
        return {name: stamp for name, stamp in stamps.items() if name not in growing}, growing

    def _is_ready(self, growing: Files, fresh: Files, now: float, least: int) -> bool:
        """Whether enough files are complete, and no other file is expected soon."""
        if len(fresh) < least:
            self._ready_since = None
            return False
        if self._ready_since is None:
            self._ready_since = now
        if growing and now - self._ready_since < _MAX_SETTLE_TIMES * self.settle_s:
            return False
        self._ready_since = None
        return True

    def _without_known(self, complete: Files, known: Mapping[str, FileRecord]) -> Files:
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
            if name.startswith(".") or name.lower().endswith(_UNFINISHED):
                continue
            path = Path(root, name)
            if (stamp := stamp_of(path)) is not None:
                stamps[path.relative_to(folder).as_posix()] = stamp
    return stamps
