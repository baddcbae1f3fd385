"""Plain lines, for files, pipes and schedulers."""

from __future__ import annotations

import os
from typing import TextIO

from training.logging.progress import Position
from training.logging.voice import Kind
from training.logging.words import row


class Plain:
    """Writes each text as it is; one that nobody reads any more (`| head`) is left alone."""

    draws = False

    def __init__(self, stream: TextIO) -> None:
        self._stream: TextIO | None = stream

    def say(self, kind: Kind, text: str) -> None:
        """Write `text` and a line break."""
        if kind == "log" or self._stream is None:
            return
        if kind == "warning":
            text = row("warning", text)
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
