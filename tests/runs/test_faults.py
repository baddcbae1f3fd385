"""Failures outside of the program are named, and nothing hangs or is lost."""

import resource
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.runs.conftest import REQUESTS
from tests.waiting import until

LONG = ("--model", "language:tiny", "--data", "mine.jsonl", "--max-steps", "100000")


@pytest.fixture
def start(program):
    """Starts a command line beside a small dataset; remaining processes are killed at the end."""
    (program.folder / "mine.jsonl").write_text(REQUESTS)
    started = []

    def run(*args, **options):
        process = program.start(*args, **options)
        started.append(psutil.Process(process.pid))
        return process

    yield run
    for process in started:
        with suppress(psutil.NoSuchProcess):
            for child in [*process.children(recursive=True), process]:
                child.kill()


def size(path):
    return path.stat().st_size if path.exists() else 0


def checkpoints(run):
    return sorted(path.name for path in (run / "checkpoints").glob("*"))


@pytest.mark.slow
def test_a_rank_hanging_in_its_data_ends_all_ranks_and_is_named(start, tmp_path):
    process = start(
        *(*LONG, "--nproc", "2", "--num-workers", "1", "--out", "run"),
        *("--set", "engine.timeout_s=20", "--set", "log.every=1"),
    )
    until(lambda: size(tmp_path / "run/metrics.jsonl") > 0, process)
    ranks = psutil.Process(process.pid).children()
    second = next(child for child in ranks if child.environ().get("RANK") == "1")
    second.children()[0].suspend()  # its loader worker
    _, stderr = process.communicate()  # without a limit it would hang
    assert process.returncode == 1
    first_line = stderr.strip().splitlines()[0]
    assert first_line.startswith("error: rank 1: data-loader worker")
    assert not [child for child in ranks if child.is_running()]


@pytest.mark.slow
def test_a_file_size_limit_keeps_earlier_checkpoints(start, tmp_path, program):
    args = (*LONG[:-1], "12", "--out", "run", "--set", "save.every=4", "--set", "eval.every=null")
    assert program(*args).returncode == 0
    before = checkpoints(tmp_path / "run")
    largest = max(path.stat().st_size for path in (tmp_path / "run/last/").iterdir())

    def limited():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest // 2, largest // 2))

    longer = ("resume", "run", "--max-steps", "40", "--reset", "schedule")
    again = start(*longer, preexec_fn=limited)
    _, stderr = again.communicate()
    assert again.returncode == 1
    assert "error: the checkpoint of step 16 cannot be saved" in stderr
    assert "File too large" in stderr
    assert checkpoints(tmp_path / "run") == before
    assert program("verify", "run").returncode == 0


@pytest.mark.slow
def test_a_run_killed_at_any_moment_ends_bit_equal_to_an_unbroken_one():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.crash", "--kills", "2", "--engines", "local", "ddp"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")][1:]
    assert [row[0] for row in rows] == ["| local", "| ddp", "| in all"]
    assert rows[-1][2] == "2"
