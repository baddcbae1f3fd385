"""How runs end: by signals, kills, a hanging rank or a full disk, and what they print and keep."""

import os
import pty
import resource
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import psutil
import pytest

from gearshift.launcher.run_folder import run_folder
from gearshift.training.checkpoint import manifest
from tests.runs.conftest import REQUESTS, Program, environment
from tests.waiting import LIMIT_S, until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("hangups")]

ARGS = ["--model", "language:tiny", "--data", "mine.jsonl", "--out", "mine", "--epochs", "1000"]
ARGS += ["--set", "log.every=1", "--set", "train.preview=false", "--set", "save.every=5"]
RESUME = "resume: python -m launcher resume mine"
RESUME_HINT = f"run folder mine; report: mine/report.html; {RESUME}"


@pytest.fixture
def program(tmp_path):
    """The program beside a small dataset."""
    (tmp_path / "mine.jsonl").write_text(REQUESTS)
    return Program(tmp_path)


@contextmanager
def training(program, *args, **options):
    """A run that has saved a checkpoint; it is killed in the end, with its children."""
    with program.start(*ARGS, *args, stderr=subprocess.STDOUT, **options) as process:
        # No test waits for its run longer than this.
        watch = threading.Timer(LIMIT_S, process.kill)
        watch.start()
        try:
            next(line for line in process.stdout if line.startswith("saved"))
            yield process
        finally:
            watch.cancel()
            process.kill()


def is_rank(child):
    return "gearshift.launcher.run.rank" in child.cmdline()


def ranks(process):
    """The processes of the ranks, by rank."""
    found = filter(is_rank, psutil.Process(process.pid).children())
    return sorted(found, key=lambda child: int(child.environ()["RANK"]))


def checkpoints(folder):
    """The steps of the checkpoints, each complete; there must be no incomplete ones."""
    entries = list((folder / "mine" / run_folder.CHECKPOINTS).iterdir())
    assert [entry.name for entry in entries if entry.name.startswith(".")] == []
    return sorted(manifest.read(entry).step for entry in entries)


def has_saved(folder):
    """Whether the link to the last checkpoint names the newest one."""
    return checkpoints(folder)[-1] == manifest.step_of((folder / "mine" / "last").resolve().name)


def test_a_signal_to_one_rank_saves_a_checkpoint_of_all_and_sets_the_exit_code(program, tmp_path):
    with training(program, "--nproc", "2") as process:
        ranks(process)[1].send_signal(signal.SIGUSR1)
        rest = process.stdout.read()
    assert process.returncode == 75, rest
    assert rest.splitlines()[-1] == RESUME_HINT
    assert has_saved(tmp_path)


def test_a_run_started_by_nohup_is_not_ended_when_the_terminal_is_closed(program):
    ignored = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does; children inherit it
    try:
        with training(program, "--nproc", "2", "--max-steps", "40") as process:
            process.send_signal(signal.SIGHUP)
            rest = process.stdout.read()
    finally:
        signal.signal(signal.SIGHUP, ignored)
    assert process.returncode == 0, rest


def test_a_killed_run_of_two_ranks_leaves_no_temporary_folder_after_the_next(program, tmp_path):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    variables = environment() | {"TMPDIR": str(temporary)}
    with training(program, "--nproc", "2", env=variables) as process:
        children = ranks(process)
        process.kill()
        process.wait()
        for child in children:
            child.kill()
    assert [*temporary.glob("gearshift-*")]
    again = ["resume", "mine", "--max-steps", "8", "--set", "schedule.name=constant"]
    with program.start(*again, "--reset", "schedule", env=variables) as process:
        output, errors = process.communicate()
    assert process.returncode == 0, output + errors
    assert not [*temporary.glob("gearshift-*")]


def test_a_killed_rank_is_reported_first_and_the_run_resumes_from_its_last_checkpoint(program):
    with training(program, "--nproc", "2", "--max-restarts", "1") as process:
        ranks(process)[1].kill()
        lines = []
        for line in process.stdout:
            lines.append(line.rstrip())
            if line.startswith("resumed"):
                break
        [error] = [line for line in lines if line.startswith("error")]
        assert error.startswith(f"error: rank 1 on {socket.gethostname()} died: killed by SIGKILL ")
        [again] = [line for line in lines if line.startswith("restart")]
        assert again.startswith("restart 1 of 1 from step ")
        name = lines[-1].split()[2].rstrip(",")  # resumed from step-00000020, written by ...
        assert str(manifest.step_of(name)) == again.split()[-1]
        ranks(process)[0].kill()
        rest = process.stdout.read()
    assert process.returncode == 1, rest
    assert rest.count("error:") == 1
    assert rest.splitlines()[-1] == RESUME_HINT.replace(
        "; resume", "; details: mine/log.txt; resume"
    )


def test_closing_the_terminal_saves_the_run(program, tmp_path):
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(tmp_path)
        os.environ.update(environment())
        os.execv(sys.executable, [sys.executable, "-m", "launcher", *ARGS, "--nproc", "1"])
    shown = b""
    while b"saved" not in shown:
        shown += os.read(terminal, 1 << 12)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 75
    assert has_saved(tmp_path)


def test_a_full_disk_below_stdout_does_not_change_how_a_run_ends(program, tmp_path):
    with open("/dev/full", "w") as full:
        process = program.start(*ARGS, "--max-steps", "3", stdout=full)
    _, error = process.communicate()
    assert process.returncode == 0, error
    assert checkpoints(tmp_path) == [3]


def is_tracker(child):
    return any("gearshift.training.trackers" in word for word in child.cmdline())


def is_worker(child):
    return child.parent() is not None and is_rank(child.parent())


CHILDREN = {
    "worker, restarted": (is_worker, ["--num-workers", "2", "--max-restarts", "1"]),
    "worker of two ranks": (is_worker, ["--num-workers", "1", "--nproc", "2"]),
    "rank": (is_rank, ["--nproc", "2", "--set", "engine.timeout_s=20"]),
    "tracker": (is_tracker, ["--track", "wandb", "--set", "tracking.wait_s=2"]),
}


@pytest.mark.parametrize(
    ("child", "number", "ends"),
    [
        ("worker, restarted", signal.SIGKILL, None),
        ("worker of two ranks", signal.SIGTERM, None),
        ("rank", signal.SIGSTOP, 75),
        ("tracker", signal.SIGSTOP, None),
    ],
)
def test_a_run_survives_or_ends_with_its_child(program, monkeypatch, child, number, ends):
    """`ends`: its exit code; None: it continues. A closed terminal then ends it with 75."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    is_child, options = CHILDREN[child]
    with training(program, *options) as process:
        victim = next(filter(is_child, psutil.Process(process.pid).children(recursive=True)))
        os.kill(victim.pid, number)
        if ends == 75 and number == signal.SIGSTOP:
            process.send_signal(signal.SIGHUP)
        rest, saved, continues = [], count(1), "restarted" not in child
        for line in process.stdout:
            rest.append(line)
            continues = continues or line.startswith("restart 1 of 1")  # it saves as it ends, too
            if ends is None and continues and line.startswith("saved") and next(saved) == 2:
                process.send_signal(signal.SIGHUP)
    text = "".join(rest)
    assert process.wait() == (ends or 75), text
    assert "Traceback" not in text and RESUME in text
    if "worker" in child and number in (signal.SIGKILL, signal.SIGSTOP):
        assert f"worker {victim.pid} died" in text and "loader.workers" in text
    assert ("\nrestart 1 of 1 from step " in text) == ("restarted" in child)
    assert not victim.is_running() or victim.status() == psutil.STATUS_ZOMBIE


def test_a_rank_hanging_in_its_data_ends_all_ranks_and_is_named(program):
    options = ("--nproc", "2", "--num-workers", "1", "--set", "engine.timeout_s=20")
    with training(program, *options) as process:
        both = ranks(process)
        both[1].children()[0].suspend()  # its loader worker
        rest = process.stdout.read()  # without a limit it would hang
    assert process.returncode == 1
    first = next(line for line in rest.splitlines() if line.startswith("error"))
    assert first.startswith("error: rank 1 on ") and "does not answer the other ranks" in first
    until(lambda: not [rank for rank in both if rank.is_running()])


def test_a_file_size_limit_keeps_earlier_checkpoints(program, tmp_path):
    steps = ("--max-steps", "12", "--set", "save.every=4", "--set", "eval.every=null")
    assert program(*ARGS, *steps).returncode == 0
    before = checkpoints(tmp_path)
    largest = max(path.stat().st_size for path in (tmp_path / "mine/last/").iterdir())

    def limited():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest // 2, largest // 2))

    done = program("resume", "mine", "--max-steps", "40", "--reset", "schedule", preexec_fn=limited)
    assert done.returncode == 1
    assert "error: the checkpoint of step 16 cannot be saved" in done.stderr
    assert checkpoints(tmp_path) == before
    assert program("verify", "mine").returncode == 0


def test_a_run_killed_at_any_moment_ends_bit_equal_to_an_unbroken_one():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.crash", "--kills=1", "--steps=24", "--engines", "ddp"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")][1:]
    assert [row[0] for row in rows] == ["| ddp", "| in all"]
    assert rows[-1][2] == "1"
