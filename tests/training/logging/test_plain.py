"""Plain lines through a real pipe and into files."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

from training.logging.outputs import PlainOutput

ROOT = Path(__file__).parents[3]
NARRATE = [sys.executable, "-m", "tests.training.logging.narrate"]


def test_a_pipe_gets_plain_lines_as_they_come():
    done = subprocess.run(NARRATE, cwd=ROOT, capture_output=True, text=True, check=True)

    assert "\x1b" not in done.stdout and "\r" not in done.stdout
    labels = [line.split()[0] for line in done.stdout.splitlines() if not line.startswith("|")]
    assert labels == [
        *("model", "mode", "engine", "batch", "run", "before"),
        *("step", "step", "eval", "printed", "step", "step"),
        *("completed", "best", "speed", "memory"),
    ]
    assert "| a �[31mred [bold]preview" in done.stdout
    assert done.stderr == "warned by a library\n"


def test_a_reader_that_leaves_does_not_end_the_run():
    running = subprocess.Popen(NARRATE, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert running.stdout is not None
    running.stdout.close()  # as `| head` does, here before the first line
    _, errors = running.communicate(timeout=60)

    assert running.returncode == 0, errors


def test_letters_that_a_file_cannot_hold_are_replaced():
    buffer = io.BytesIO()
    stream = io.TextIOWrapper(buffer, encoding="ascii")
    PlainOutput(stream).say("best", "16 × 2  ← best")

    assert buffer.getvalue() == b"16 ? 2  ? best\n"


def test_what_is_for_the_log_alone_is_not_shown():
    stream = io.StringIO()
    voice = PlainOutput(stream)
    voice.say("log", "event")
    voice.say("warning", "careful")

    assert stream.getvalue() == "warning    careful\n"
