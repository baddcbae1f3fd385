"""A single rank in a fork: signals reach it once, and it ends with its parent."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import until

ROOT = Path(__file__).parents[3]
WAITS, WAITS_IN_A_LIBRARY = -1, -2
"""As tests.launcher.killed has them."""


@pytest.fixture
def waiting(tmp_path, request):
    """A run whose rank waits in a fork, in a process group of its own; and the rank's process."""
    where = str(getattr(request, "param", WAITS))
    ready = tmp_path / "run" / "ready"
    command = [sys.executable, "-m", "tests.launcher.killed", tmp_path / "run", "0", where]
    with subprocess.Popen(
        command, cwd=ROOT, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        until(lambda: ready.exists() and ready.read_text())
        yield process, int(ready.read_text())
        process.kill()


@pytest.mark.parametrize(
    ("waiting", "number", "send", "expected"),
    [
        (WAITS_IN_A_LIBRARY, signal.SIGTERM, os.kill, "stopped by SIGTERM before anything was"),
        (WAITS, signal.SIGINT, os.killpg, "interrupted before anything was"),  # as a terminal does
    ],
    indirect=["waiting"],
)
def test_a_signal_stops_the_rank_and_is_reported_once(waiting, number, send, expected):
    process, rank = waiting
    assert rank != process.pid
    send(process.pid, number)
    code = {signal.SIGTERM: 75, signal.SIGINT: 130}[number]
    ended, reported = process.stdout.read().splitlines()[1:]
    assert ended == f"stopped, {code}" and reported.startswith(f"{expected} saved")


def test_the_rank_ends_when_its_parent_is_killed(waiting):
    process, rank = waiting
    process.kill()
    process.wait()
    until(lambda: not Path(f"/proc/{rank}").exists())
