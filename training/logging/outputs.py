"""Outputs of the console reporter: their contract, plain lines, and log.txt."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Literal, TextIO

from training.logging.printable import printable
from training.storage import Storage

if TYPE_CHECKING:
    from rich.console import RenderableType

Kind = Literal["head", "train", "evaluated", "best", "saved", "notice", "warning", "summary", "log"]
"""The subject of a text; "log" is for the log file only."""
PREVIEW_LINES, _PREVIEW_WIDTH = 5, 100
"""Of a longer text on the console; the log has all of it."""


class ConsoleOutput:
    is_live = False
    """Whether `draw` shows anything; otherwise positions need not be computed."""

    def write(self, kind: Kind, text: str) -> None:
        """Add `text`, one line or more."""

    def write_block(self, title: str, text: str) -> None:
        self.write("notice", "\n".join([title, *(f"| {line}" for line in shortened(text))]))

    def draw(self, view: RenderableType) -> None:
        """Show the progress instead of the last one."""

    def close(self) -> None:
        """Restore the output as it was; nothing is written afterwards."""


def discard(stream: TextIO) -> None:
    """Send the rest to nowhere.

    Text in the stream's buffer would fail once more when the interpreter exits, and change its exit
    code. Source: Python, library reference, "Note on SIGPIPE".
    """
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def shortened(text: str) -> list[str]:
    """At most PREVIEW_LINES lines of `text`, none of them empty, with a word about the rest."""
    lines = [line for line in printable(text).splitlines() if line.strip()]
    shown = lines if len(lines) <= PREVIEW_LINES else lines[: PREVIEW_LINES - 1]
    cut = [line if len(line) <= _PREVIEW_WIDTH else f"{line[: _PREVIEW_WIDTH - 1]}…" for line in shown]
    rest = len(lines) - len(shown)
    return [*cut, f"… {rest} more lines in log.txt"] if rest else cut


class PlainOutput(ConsoleOutput):
    """Plain lines for files, pipes and schedulers; a closed pipe (`| head`) is ignored."""

    def __init__(self, stream: TextIO) -> None:
        self._stream: TextIO | None = stream

    def write(self, kind: Kind, text: str) -> None:
        if kind == "log" or self._stream is None:
            return
        encoding = self._stream.encoding or "utf-8"
        # A file may have an encoding without × or the model's characters.
        text = printable(text).encode(encoding, "replace").decode(encoding)
        try:
            self._stream.write(text + "\n")
            self._stream.flush()
        except OSError:
            discard(self._stream)
            self._stream = None


class LogFileOutput(ConsoleOutput):
    """log.txt: all texts and events, in local time. Raises StorageError."""

    def __init__(self, storage: Storage, now: Callable[[], datetime] = datetime.now) -> None:
        self._file, self._now = storage.open_lines("log.txt"), now

    def write(self, kind: Kind, text: str) -> None:
        time = self._now().isoformat(" ", timespec="seconds")
        for line in printable(text).splitlines():
            self._file.write(f"{time}  {line}".encode())

    def write_block(self, title: str, text: str) -> None:
        lines = printable(text).splitlines()
        self.write("notice", "\n".join([title, *(f"| {line}" for line in lines)]))

    def close(self) -> None:
        self._file.close()
