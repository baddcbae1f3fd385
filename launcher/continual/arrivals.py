"""New files of the folder that a run learns from: which are to be taken in now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from launcher.continual import ledger
from launcher.continual.ledger import File, Ledger
from launcher.continual.watch import Seen, Stamp, Watch

_PATIENCE = 10
"""Files that are complete wait for others that are still written, but not longer than so many
times the time in which a file settles: what comes together is learnt together."""


@dataclass
class Arrivals:
    """Looks at a folder, knowing what was learnt."""

    folder: Path
    settle_s: float
    min_files: int
    learns_changes: bool = False
    """A file that changed after it was learnt is a new one."""
    notes: list[str] = field(default_factory=list)
    """What a person should know of files that are not taken, since the last time they were read."""

    def __post_init__(self) -> None:
        self._watch = Watch(self.folder, self.settle_s)
        self._left: dict[str, Stamp] = {}
        self._ready_since: float | None = None
        self.changed_at: float | None = None
        """When a new file was seen, or one that changed."""
        self._seen_last: Mapping[str, Stamp] = {}

    def first(self, now: float, wall: float) -> dict[str, File] | None:
        """The files that are there at the beginning; None: some are still being written.

        A file that was not touched for as long as it settles is complete at the first look.
        """
        seen = self._watch.look(now)
        self._watch.trust(
            name
            for name, stamp in seen.growing.items()
            if wall - stamp.mtime_ns / 1e9 >= self.settle_s
        )
        seen = self._watch.look(now)
        self._note(seen, {}, now)
        if not seen.growing and not seen.complete:
            return {}
        if not self._is_ready(seen, seen.complete, now, least=1):
            return None
        return ledger.take(self.folder, seen.complete)

    def new(self, known: Ledger, now: float) -> dict[str, File]:
        """The complete files that an experience may begin with now; none: not yet."""
        taken, refused = known.taken(), known.refused
        seen = self._watch.look(now)
        growing = {n: s for n, s in seen.growing.items() if not _is_known(n, s, taken)}
        complete = {
            name: stamp
            for name, stamp in seen.complete.items()
            if not _is_known(name, stamp, taken) and self._left.get(name) != stamp
        }
        self._note(Seen(complete, growing), taken, now)
        complete = self._leave_changed(complete, taken)
        again = refused.files if refused is not None else {}
        fresh = {n: s for n, s in complete.items() if n not in again or again[n].stamp != s}
        if not self._is_ready(Seen(complete, growing), fresh, now, self.min_files):
            return {}
        found = self._leave_copies(ledger.take(self.folder, complete), taken)
        if any(name in fresh for name in found):
            return found
        return {}

    def _is_ready(self, seen: Seen, fresh: Mapping[str, Stamp], now: float, least: int) -> bool:
        """Whether enough files are complete, and none is on its way, or has been for long."""
        if len(fresh) < least:
            self._ready_since = None
            return False
        if self._ready_since is None:
            self._ready_since = now
        if seen.growing and now - self._ready_since < _PATIENCE * self.settle_s:
            return False
        self._ready_since = None
        return True

    def _note(self, seen: Seen, taken: Mapping[str, File], now: float) -> None:
        """Whether anything came since the last look."""
        there = {n: s for n, s in {**seen.growing, **seen.complete}.items() if n not in taken}
        if there != self._seen_last and set(there.items()) - set(self._seen_last.items()):
            self.changed_at = now
        self._seen_last = there

    def _leave_changed(
        self, complete: Mapping[str, Stamp], taken: Mapping[str, File]
    ) -> dict[str, Stamp]:
        """Without files that were taken and have changed since, which is told once."""
        kept = {}
        for name, stamp in complete.items():
            is_other = name in taken and any(ledger.changed(self.folder, {name: taken[name]}))
            if name not in taken or (is_other and self.learns_changes):
                kept[name] = stamp
                continue
            self._left[name] = stamp
            if is_other:
                self.notes.append(f"{name} has changed since it was learnt: not learnt again")
        return kept

    def _leave_copies(
        self, found: Mapping[str, File], taken: Mapping[str, File]
    ) -> dict[str, File]:
        """Without files that hold what was learnt already under another name."""
        known = {file.digest: name for name, file in taken.items()}
        kept = {}
        for name, file in found.items():
            other = known.setdefault(file.digest, name)
            if other == name:
                kept[name] = file
            else:
                self._left[name] = file.stamp
                self.notes.append(f"{name} holds what {other} does: not learnt again")
        return kept


def _is_known(name: str, stamp: Stamp, taken: Mapping[str, File]) -> bool:
    return name in taken and taken[name].stamp == stamp
