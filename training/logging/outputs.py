"""Outputs of the console reporter: their contract, plain lines, and log.txt."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Literal, TextIO

from gearshift.training.logging.printable import printable
from gearshift.training.storage import Storage

if TYPE_CHECKING:
    from rich.console import RenderableType

Kind = Literal["head", "train", "best", "saved", "notice", "warning", "summary", "preview", "log"]
"""The subject of a text; "log" is for the log file only, "preview" for the others."""


class ConsoleOutput:
    def write(self, kind: Kind, text: str) -> None:
        """Add `text`, one line or more."""

    def draw(self, view: RenderableType) -> None:
        """Show the progress instead of the last one, if this output can."""

    def close(self) -> None:
        """Restore the output as it was; nothing is written afterwards."""


def can_redraw(stream: TextIO, term: str | None) -> bool:
    """Whether `stream` is a terminal that can redraw a line; `term` is the variable TERM."""
    return is_terminal(stream) and term not in (None, "", "dumb", "unknown")


def is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and not stream.closed and stream.isatty()


@contextmanager
def discarding(stream: TextIO) -> Iterator[None]:
    """Discard the rest of `stream` once it fails: its reader (`| head`) or terminal has gone."""
    try:
        yield
    except OSError:
        discard(stream)


def discard(stream: TextIO) -> None:
    """Send the rest to nowhere.

    Text in the stream's buffer would fail once more when the interpreter exits, and change its exit
    code. Source: Python, library reference, "Note on SIGPIPE".
    """
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


class PlainOutput(ConsoleOutput):
    """Plain lines for files, pipes and schedulers."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, kind: Kind, text: str) -> None:
        if kind != "log":
            encoding = self._stream.encoding or "utf-8"
            # A file may have an encoding without × or the model's characters.
            text = printable(text).encode(encoding, "replace").decode(encoding)
            with discarding(self._stream):
                print(text, file=self._stream, flush=True)


class LogFileOutput(ConsoleOutput):
    """log.txt: all texts and events, in local time. Raises StorageError."""

    def __init__(self, storage: Storage) -> None:
        self._file = storage.open_lines("log.txt")

    def write(self, kind: Kind, text: str) -> None:
        if kind != "preview":
            time = datetime.now().isoformat(" ", timespec="seconds")
            for line in printable(text).splitlines():
                self._file.write(f"{time}  {line}".encode())

    def close(self) -> None:
        self._file.close()
