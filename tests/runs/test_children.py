"""Each child process of a run gets each signal: the run ends, restarts, or goes on without it."""

import os
import signal
import subprocess
import sys
import threading
from itertools import count

import psutil
import pytest

from tests.runs.conftest import REQUESTS, environment
from tests.waiting import LIMIT_S

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("hangups")]

RUN = ["--model", "language:tiny", "--data", "mine.jsonl", "--out", "mine", "--epochs", "1000"]
RUN += ["--set", "log.every=1", "--set", "train.preview=false", "--set", "save.every=5"]


def is_rank(child):
    return "launcher.run.rank" in child.cmdline()


def is_tracker(child):
    return any("training.trackers" in word for word in child.cmdline())


def is_worker(child):
    return child.parent() is not None and is_rank(child.parent())


CHILDREN = {
    "worker": (lambda child: True, ["--num-workers", "2"]),
    "worker, restarted": (is_worker, ["--num-workers", "2", "--max-restarts", "1"]),
    "worker of two ranks": (is_worker, ["--num-workers", "1", "--nproc", "2"]),
    "rank": (is_rank, ["--nproc", "2", "--set", "engine.timeout_s=20"]),
    "tracker": (is_tracker, ["--track", "wandb", "--set", "tracking.wait_s=2"]),
}


@pytest.mark.parametrize(
    ("child", "number", "ends"),
    [
        ("worker", signal.SIGHUP, None),
        ("worker, restarted", signal.SIGKILL, None),
        ("worker of two ranks", signal.SIGTERM, None),
        ("rank", signal.SIGHUP, 75),
        ("rank", signal.SIGSTOP, 75),
        ("tracker", signal.SIGSTOP, None),
    ],
)
def test_a_run_survives_or_ends_with_its_child(tmp_path, child, number, ends):
    """`ends`: its exit code; None: it goes on. A closed terminal then ends it with 75.

    Also: training/data/test_workers.py, test_ends.py, training/trackers/test_wandb_faults.py.
    """
    is_child, options = CHILDREN[child]
    (tmp_path / "mine.jsonl").write_text(REQUESTS)
    with subprocess.Popen(
        [sys.executable, "-m", "launcher", *RUN, *options],
        cwd=tmp_path,
        env={**environment(), "WANDB_MODE": "offline"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        watch = threading.Timer(LIMIT_S, process.kill)
        watch.start()
        try:
            next(line for line in process.stdout if line.startswith("saved"))
            victim = next(filter(is_child, psutil.Process(process.pid).children(recursive=True)))
            os.kill(victim.pid, number)
            if ends == 75 and number == signal.SIGSTOP:
                process.send_signal(signal.SIGHUP)
            rest, saved, goes_on = [], count(1), "restarted" not in child
            for line in process.stdout:
                rest.append(line)
                goes_on = goes_on or line.startswith("restart 1 of 1")  # it saves as it ends, too
                if ends is None and goes_on and line.startswith("saved") and next(saved) == 2:
                    process.send_signal(signal.SIGHUP)
        finally:
            watch.cancel()
            process.kill()
    text = "".join(rest)
    assert process.wait() == (ends or 75), text
    assert "Traceback" not in text
    assert "resume: python -m launcher resume mine" in text
    if "worker" in child and number in (signal.SIGKILL, signal.SIGSTOP):
        assert f"worker {victim.pid} died" in text and "loader.workers" in text
    assert ("\nrestart 1 of 1 from step " in text) == ("restarted" in child)
    assert not victim.is_running() or victim.status() == psutil.STATUS_ZOMBIE
