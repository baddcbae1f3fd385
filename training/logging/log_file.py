"""log.txt: what was told to a person, and every event, with times."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from training.logging.progress import Position
from training.logging.voice import Kind
from training.logging.words import row
from training.storage import LineFile


class LogFile:
    """Writes `folder`/log.txt in local time. Raises StorageError."""

    draws = False

    def __init__(
        self,
        folder: Path,
        now: Callable[[], datetime] = datetime.now,
        door: Path | None = None,
    ) -> None:
        self._file = LineFile(folder / "log.txt", door)
        self._now = now

    def say(self, kind: Kind, text: str) -> None:
        """Append each line of `text` with the time."""
        if kind == "warning":
            text = row("warning", text)
        time = self._now().isoformat(" ", timespec="seconds")
        for line in text.splitlines():
            self._file.write(f"{time}  {line}".encode("utf-8", "backslashreplace"))

    def show(self, title: str, text: str) -> None:
        """Append `text` below its title, each line behind a bar."""
        self.say("notice", "\n".join([title, *(f"| {line}" for line in text.splitlines())]))

    def draw(self, position: Position, units: str, use: str) -> None:
        """Nothing: a log does not change what it said."""

    def close(self) -> None:
        """Give back the file."""
        self._file.close()
