"""New lines of a run that another process trains, in the order of their steps."""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterator
from contextlib import suppress
from operator import itemgetter
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from gearshift.launcher.run_folder.reader import EVENT, METRICS_LINE, parsed
from gearshift.launcher.run_folder.run_folder import EVENTS, METRICS
from gearshift.training.callbacks.base import Json
from gearshift.training.storage import lines_of, open_to_read

_STEP = itemgetter("step")


class FollowedLines:
    """The new "train" lines and events of a run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[str, tuple[int, int]] = {}
        """Of each file the inode, and the end of the lines that were returned."""

    def restarted(self) -> bool:
        """Whether a file was cut or replaced, as a resume does: all lines then count as new."""
        is_cut = False
        for name, (inode, end) in self._read.items():
            with suppress(OSError):
                stat = (self._folder / name).stat()
                is_cut |= stat.st_ino != inode or stat.st_size < end
        if is_cut:
            self._read.clear()
        return is_cut

    def new(self) -> Iterator[Json]:
        """The lines since the last call. Reads the disk."""
        earlier: list[Json] = []
        events: list[Json] = []
        for event in self._lines(EVENTS, EVENT):
            events.append(event)
            if event["kind"] == "started":
                earlier += events
                events.clear()
        # The metrics of a step precede its events; two generations are not mixed.
        train = (line for line in self._lines(METRICS, METRICS_LINE) if line["kind"] == "train")
        yield from earlier
        yield from heapq.merge(train, sorted(events, key=_STEP), key=_STEP)

    def _lines(self, name: str, adapter: TypeAdapter[Any]) -> Iterator[Json]:
        """Each complete and valid line since the last call."""
        with suppress(OSError), open_to_read(self._folder / name) as file:
            stat = os.fstat(file.fileno())
            inode, end = self._read.get(name, (stat.st_ino, 0))
            if inode != stat.st_ino or stat.st_size < end:
                return
            file.seek(end)
            for line in lines_of(file):
                end += len(line)
                self._read[name] = inode, end
                with suppress(ValueError):
                    yield parsed(line, adapter)
