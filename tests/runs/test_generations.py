"""Generations of one job in a run folder: a lost one that wakes up, a failed or lost rank."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.launcher.run_folder.paused import content
from tests.runs.conftest import REQUESTS, environment
from tests.waiting import LIMIT_S, until

ARGS = ["--model", "language:tiny", "--data", "mine.jsonl", "--out", "mine"]
ARGS += ["--set", "log.every=1", "--set", "train.preview=false", "--set", "save.every=5"]


@contextmanager
def generation_processes(
    folder: Path, generation: int, ranks: int, *args: str, **variables: str
) -> Iterator[list[subprocess.Popen]]:
    """The ranks of one generation, as srun starts them; each prints into its own file."""
    (folder / "mine.jsonl").write_text(REQUESTS)
    (folder / "mine" / "slurm").mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    job_environment = {
        "GEARSHIFT_JOB": "12",
        "GEARSHIFT_GENERATION": str(generation),
        "SLURM_JOB_ID": "12",
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NUM_TASKS": str(ranks),
        "SLURM_STEP_TASKS_PER_NODE": str(ranks),
        "SLURM_NODEID": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }
    started = []
    for rank in range(ranks):
        rank_environment = {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}
        with printed(folder, generation, rank).open("w") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "launcher", *ARGS, *args],
                cwd=folder,
                env={**environment(), **job_environment, **rank_environment, **variables},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        started.append(process)
    watch = threading.Timer(LIMIT_S, lambda: [process.kill() for process in started])
    watch.start()
    try:
        yield started
    finally:
        watch.cancel()
        for process in started:
            process.kill()
            process.wait()


def printed(folder: Path, generation: int, rank: int) -> Path:
    return folder / f"printed-{generation}-{rank}"


def wait_for(file: Path, text: str, process: subprocess.Popen) -> None:
    until(lambda: file.exists() and text in file.read_text(), process)


def signalled(processes: Sequence[subprocess.Popen], number: int) -> None:
    for process in processes:
        process.send_signal(number)


def outcome(folder: Path, generation: int = 0) -> str | None:
    path = folder / "mine" / "slurm" / f"outcome.12.{generation}"
    return path.read_text().splitlines()[0] if path.exists() else None


@pytest.mark.slow
def test_lost_ranks_that_wake_up_change_nothing(tmp_path):
    args = ("--max-steps", "120", "--engine", "ddp")
    with generation_processes(tmp_path, 0, 2, *args) as lost:
        wait_for(printed(tmp_path, 0, 0), "saved", lost[0])
        signalled(lost, signal.SIGSTOP)
        with generation_processes(tmp_path, 1, 1, *args) as later:
            assert later[0].wait() == 0, printed(tmp_path, 1, 0).read_text()
        left = content(tmp_path / "mine")
        signalled(lost, signal.SIGCONT)
        codes = [process.wait() for process in lost]
    assert content(tmp_path / "mine") == left
    assert (codes, outcome(tmp_path), outcome(tmp_path, 1)) == ([1, 1], None, "done 0")
    assert "generation 0 of Slurm job 12 is fenced off: generation 1 has claimed" in "".join(
        printed(tmp_path, 0, rank).read_text() for rank in (0, 1)
    )
    result = json.loads((tmp_path / "mine" / "result.json").read_text())
    assert (result["status"], result["requeues"], result["world_size"]) == ("completed", 1, 1)
    assert 0 < result["effective_training_share"] < 1
    lines = (tmp_path / "mine" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines if '"train"' in line] == list(range(1, 121))


@pytest.mark.slow
def test_a_killed_rank_is_a_crash_and_its_lost_steps_are_counted(tmp_path):
    args = ("--max-steps", "60", "--engine", "ddp", "--set", "save.every=40")
    with generation_processes(tmp_path, 0, 2, *args) as ranks:
        wait_for(tmp_path / "mine" / "metrics.jsonl", '"step": 12', ranks[0])
        ranks[1].kill()
        assert ranks[0].wait() == 1
    assert outcome(tmp_path) is None
    logged = (tmp_path / "mine" / "metrics.jsonl").read_text().count('"train"')
    with generation_processes(tmp_path, 1, 2, *args) as ranks:
        assert [process.wait() for process in ranks] == [0, 0]
    assert outcome(tmp_path, 1) == "done 0"
    result = json.loads((tmp_path / "mine" / "result.json").read_text())
    assert (result["requeues"], result["lost_steps"]) == (1, logged)


def test_another_job_is_refused_and_leaves_the_run_as_it_is(tmp_path):
    run = tmp_path / "mine"
    (run / "checkpoints").mkdir(parents=True)
    (run / "settings.yaml").write_text("")
    left = content(run)
    with generation_processes(tmp_path, 0, 1, GEARSHIFT_JOB="13") as ranks:
        assert ranks[0].wait() == 2
    outcome = (run / "slurm" / "outcome.13.0").read_text()
    assert outcome.startswith("invalid 2\nerror: the run folder mine contains another run")
    (run / "slurm" / "outcome.13.0").unlink()
    os.rmdir(run / "slurm")
    assert content(run) == left
