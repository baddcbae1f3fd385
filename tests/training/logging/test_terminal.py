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


def test_the_bar_is_drawn_and_permanent_lines_stay_beside_those_of_libraries():
    received, code = on_terminal("")
    assert code == 0
    assert "step 20/100" in received and "━" in received and "loss   2.5000" in received
    for text in ("language:tiny", "eval        10/100", "← best", "640 sam"):
        assert text in received
    assert "printed by a library" in received and "warned by a library" in received
    assert "a �[31mred [bold]preview" in received  # of a model, shown literally
    assert received.rindex(SHOW) > received.rindex(HIDE)


def test_a_run_that_fails_leaves_the_cursor_and_the_lines():
    received, code = on_terminal("raised")
    assert code == 1
    assert received.rindex(SHOW) > received.rindex(HIDE)
    assert (
        "failed" not in received[: received.index("Traceback")]
    )  # the supervisor reports the error
    assert received.index("Traceback") < received.rindex("out of luck")


def test_a_terminal_that_cannot_redraw_gets_plain_lines():
    received, code = on_terminal("", term="dumb")
    assert code == 0
    assert "\x1b" not in received and "step        20/100" in received


def test_a_terminal_that_goes_away_does_not_end_the_run():
    master, slave = pty.openpty()
    program = [sys.executable, "-m", "tests.training.logging.reported_run"]
    variables = {**os.environ, "TERM": "xterm-256color"}
    streams = {"stdin": slave, "stdout": slave, "stderr": subprocess.PIPE}
    running = subprocess.Popen(program, cwd=ROOT, env=variables, **streams)
    os.close(slave)
    os.close(master)  # before the first line
    _, errors = running.communicate()
    assert (running.returncode, errors) == (0, b"warned by a library\n")
