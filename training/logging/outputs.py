"""What tells a person how a run goes: the contract of the plain, the terminal and the log voice."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol, TextIO

from training.logging.console_text import render_row
from training.logging.progress import Position
from training.storage import LineFile

Kind = Literal["head", "train", "evaluated", "best", "saved", "notice", "warning", "summary", "log"]
"""What a text is about; "log" is for the log file only."""


class ConsoleOutput(Protocol):
    """One place that texts go to."""

    draws: bool
    """Whether `draw` shows anything, so that nobody works out positions for nothing."""

    def say(self, kind: Kind, text: str) -> None:
        """Add `text`, one line or more."""

    def show(self, title: str, text: str) -> None:
        """Add a longer `text` under its title, such as what the model wrote."""

    def draw(self, position: Position, units: str, use: str) -> None:
        """Show where the run stands, in place of what was shown before; `use` is the machine's."""

    def close(self) -> None:
        """Leave the place as it was found; nothing is said afterwards."""


class PlainOutput:
    """Writes each text as it is; one that nobody reads any more (`| head`) is left alone."""

    draws = False

    def __init__(self, stream: TextIO) -> None:
        self._stream: TextIO | None = stream

    def say(self, kind: Kind, text: str) -> None:
        """Write `text` and a line break."""
        if kind == "log" or self._stream is None:
            return
        if kind == "warning":
            text = render_row("warning", text)
        encoding = self._stream.encoding or "utf-8"
        # A file may be in an encoding that lacks × or the model's letters.
        text = text.encode(encoding, "replace").decode(encoding)
        try:
            self._stream.write(text + "\n")
            self._stream.flush()
        except OSError:
            self._fall_silent(self._stream)

    def show(self, title: str, text: str) -> None:
        """Write `text` below its title, each line behind a bar."""
        bars = "\n".join(f"| {line}" for line in text.splitlines())
        self.say("notice", f"{title}\n{bars}")

    def draw(self, position: Position, units: str, use: str) -> None:
        """Nothing: the logged steps say it."""

    def close(self) -> None:
        """Nothing to put back."""

    def _fall_silent(self, stream: TextIO) -> None:
        self._stream = None
        # What the stream still holds would fail once more when the interpreter ends, and change
        # its exit code. Source: Python, library reference, "Note on SIGPIPE".
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


class LogFileOutput:
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
            text = render_row("warning", text)
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
