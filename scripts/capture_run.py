"""Runs a command in a terminal of its own and saves its final screen as an SVG picture.

    python -m scripts.capture_run docs/images/run.svg -- python -m launcher --model language:small

The picture in README is made with it.
"""

from __future__ import annotations

import argparse
import fcntl
import io
import os
import pty
import re
import shlex
import struct
import subprocess
import termios
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROWS = 50
_CONTROL = re.compile(r"\x1b\[(\?)?([0-9;]*)([A-Za-z])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\r|\n")


class Screen:
    """The screen of a terminal that is written line by line, as rich does."""

    def __init__(self) -> None:
        self.lines = [""]
        self.row = 0
        self.fresh = False
        """The next text replaces the line."""

    def feed(self, output: str) -> None:
        """Process the output of a program."""
        at = 0
        for control in _CONTROL.finditer(output):
            self._write(output[at : control.start()])
            self._obey(control)
            at = control.end()
        self._write(output[at:])

    def _write(self, text: str) -> None:
        if text:
            self.lines[self.row] = text if self.fresh else self.lines[self.row] + text
            self.fresh = False

    def _obey(self, control: re.Match[str]) -> None:
        if control[0] == "\r":
            self.fresh = True
        elif control[0] == "\n":
            self._down()
        elif control[3] == "A":
            self.row = max(0, self.row - int(control[2] or 1))
        elif control[3] == "K":
            self.lines[self.row] = ""
        elif control[3] == "m":
            self._write(control[0])

    def _down(self) -> None:
        self.row += 1
        self.fresh = False
        if self.row == len(self.lines):
            self.lines.append("")


def output_of(command: list[str], columns: int) -> str:
    """Run `command` in a terminal of `columns` columns; its whole output. Raises if it fails."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    process = subprocess.Popen(command, stdin=its, stdout=its, stderr=its, env=environment)
    os.close(its)
    taken = io.BytesIO()
    while chunk := _read(ours):
        taken.write(chunk)
    if process.wait():
        raise RuntimeError(f"{shlex.join(command)} ended with {process.returncode}")
    return taken.getvalue().decode("utf-8", "replace")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux's error when the other side is closed
        return b""


def picture(lines: list[str], command: list[str], columns: int) -> str:
    """The lines as an SVG of a terminal window, below the command."""
    console = Console(record=True, width=columns, file=io.StringIO(), color_system="truecolor")
    console.print(Text.assemble(("$ ", "green"), (shlex.join(command), "bold")))
    for line in lines:
        console.print(Text.from_ansi(line), overflow="fold")
    return console.export_svg(title="gearshift", clear=False)


def main() -> None:
    """Run the command and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--columns", type=int, default=100)
    parser.add_argument("command", nargs="+", help="after --")
    options = parser.parse_args()
    screen = Screen()
    screen.feed(output_of(options.command, options.columns))
    text = "\n".join(screen.lines).strip("\n").split("\n")
    options.picture.parent.mkdir(parents=True, exist_ok=True)
    options.picture.write_text(picture(text, options.command, options.columns), encoding="utf-8")


if __name__ == "__main__":
    main()
