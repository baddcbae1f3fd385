"""Plain lines in a real pipe and in files; log.txt."""

import io
import subprocess
import sys
from pathlib import Path

from gearshift.training.logging.console_reporter import PlainOutput

ROOT = Path(__file__).parents[3]
PROGRAM = [sys.executable, "-m", "tests.training.logging.reported_run"]


def test_a_pipe_gets_plain_lines():
    done = subprocess.run(PROGRAM, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "\x1b" not in done.stdout and "\r" not in done.stdout
    labels = [line.split()[0] for line in done.stdout.splitlines() if not line.startswith("|")]
    assert labels == [
        *("model", "mode", "engine", "batch", "run", "before"),
        *("step", "step", "eval", "printed", "step", "step"),
        *("finished", "best", "speed", "memory"),
    ]
    assert "| a �[31mred [bold]preview" in done.stdout
    assert done.stderr == "warned by a library\n"


def test_a_closed_pipe_does_not_end_the_run():
    running = subprocess.Popen(PROGRAM, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert running.stdout is not None
    running.stdout.close()  # as `| head` does, here before the first line
    _, errors = running.communicate()
    assert running.returncode == 0, errors


def test_characters_outside_the_encoding_are_replaced():
    buffer = io.BytesIO()
    stream = io.TextIOWrapper(buffer, encoding="ascii")
    PlainOutput(stream).write("best", "16 × 2  ← best")
    assert buffer.getvalue() == b"16 ? 2  ? best\n"
