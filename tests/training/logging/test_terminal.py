"""The progress bar on a real pseudo-terminal, which must stay usable."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
from pathlib import Path

ROOT = Path(__file__).parents[3]
ROWS, COLUMNS = 40, 90
HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"


def on_terminal(ending, term="xterm-256color"):
    """The output of the run on a terminal, and its exit code."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    before = termios.tcgetattr(slave)
    running = subprocess.Popen(
        [sys.executable, "-m", "tests.training.logging.reported_run", ending],
        cwd=ROOT,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**os.environ, "TERM": term, "COLUMNS": "", "LINES": ""},
    )
    received = b""
    while running.poll() is None or _is_ready(master):
        if _is_ready(master):
            received += os.read(master, 65536)
    assert termios.tcgetattr(slave) == before
    os.close(slave)
    os.close(master)
    return received.decode(), running.returncode


def _is_ready(handle):
    return bool(select.select([handle], [], [], 0.05)[0])


class Screen:
    """The lines of a terminal after the control codes that rich uses: up, erase line, return."""

    def __init__(self, received):
        self.lines = [""]
        self.row = 0
        self.cursor_is_visible = True
        while received:
            received = self._take(received)

    def _take(self, rest):
        if rest.startswith("\x1b["):
            end = next(i for i, c in enumerate(rest[2:], 2) if c.isalpha())
            self._control(rest[2:end], rest[end])
            return rest[end + 1 :]
        character = rest[0]
        if character == "\n":
            self.row += 1
            if self.row == len(self.lines):
                self.lines.append("")
        elif character != "\r":
            self.lines[self.row] += character
        return rest[1:]

    def _control(self, argument, code):
        if code == "A":
            self.row -= int(argument)
        elif code == "K":
            self.lines[self.row] = ""
        elif argument == "?25":
            self.cursor_is_visible = code == "h"
        else:
            assert code == "m", f"{argument}{code} is not expected"


def test_the_bar_is_removed_and_permanent_lines_stay_below_those_of_libraries():
    received, code = on_terminal("")

    screen = Screen(received)
    assert code == 0
    assert "step 20/100" in received and "━" in received and "loss   2.5000" in received
    kept = "\n".join(screen.lines)
    assert "━━" not in kept and "elapsed" not in kept
    for text in ("model      language:tiny", "eval        10/100", "← best", "speed      640 sam"):
        assert text in kept
    assert "printed by a library" in screen.lines and "warned by a library" in screen.lines
    assert "a �[31mred [bold]preview" in received  # of a model, shown literally
    assert not any(screen.lines[screen.row :])
    assert screen.cursor_is_visible


def test_a_run_that_fails_leaves_the_cursor_and_the_lines():
    received, code = on_terminal("raised")
    screen = Screen(received)
    assert code == 1
    assert screen.cursor_is_visible
    kept = "\n".join(screen.lines)
    assert "━━" not in kept
    assert "failed" not in kept[: kept.index("Traceback")]  # the supervisor reports the error
    assert kept.index("Traceback") < kept.rindex("out of luck")


def test_a_terminal_that_cannot_redraw_gets_plain_lines():
    received, code = on_terminal("", term="dumb")
    assert code == 0
    assert "\x1b" not in received and "step        20/100" in received
