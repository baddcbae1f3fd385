"""How runs end: by a signal or an error, with a line that shows the next command."""

import os
import pty
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager

import psutil
import pytest

from launcher.run_folder import run_folder
from tests.runs.conftest import REQUESTS, Program, environment
from tests.waiting import LIMIT_S
from training.checkpoint import manifest

pytestmark = pytest.mark.usefixtures("hangups")

ARGS = ["--model", "language:tiny", "--data", "mine.jsonl", "--out", "mine", "--epochs", "1000"]
ARGS += ["--set", "log.every=1", "--set", "train.preview=false", "--set", "save.every=5"]
RESUME_HINT = "run folder mine; report: mine/report.html; resume: python -m launcher resume mine"


@contextmanager
def training(folder, *args):
    """A run that has taken its first steps."""
    (folder / "mine.jsonl").write_text(REQUESTS)
    with Program(folder).start(*ARGS, *args, stderr=subprocess.STDOUT) as process:
        # No test waits for its run longer than this.
        watch = threading.Timer(LIMIT_S, process.kill)
        watch.start()
        try:
            for line in process.stdout:
                if line.startswith("saved"):
                    break
            yield process
        finally:
            watch.cancel()
            process.kill()


def ranks(process):
    """The processes of the ranks, by rank."""
    found = psutil.Process(process.pid).children()
    numbered = [child for child in found if "launcher.run.rank" in child.cmdline()]
    numbered.sort(key=lambda process: int(process.environ()["RANK"]))
    return [child.pid for child in numbered]


def checkpoints(folder):
    """The steps of the checkpoints, each complete; there must be no incomplete ones."""
    entries = list((folder / "mine" / run_folder.CHECKPOINTS).iterdir())
    assert [entry.name for entry in entries if entry.name.startswith(".")] == []
    return sorted(manifest.read(entry).step for entry in entries)


@pytest.mark.slow
def test_a_signal_to_one_rank_saves_a_checkpoint_of_all_and_sets_the_exit_code(tmp_path):
    with training(tmp_path, "--nproc", "2") as process:
        os.kill(ranks(process)[1], signal.SIGUSR1)
        rest = process.stdout.read()
    assert process.returncode == 75, rest
    assert rest.splitlines()[-1] == RESUME_HINT
    last = (tmp_path / "mine" / "last").resolve().name
    assert checkpoints(tmp_path)[-1] == manifest.step_of(last)


@pytest.mark.slow
def test_a_run_started_by_nohup_goes_on_when_the_terminal_is_closed(tmp_path):
    ignored = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does; children inherit it
    try:
        with training(tmp_path, "--nproc", "2", "--max-steps", "40") as process:
            process.send_signal(signal.SIGHUP)
            rest = process.stdout.read()
    finally:
        signal.signal(signal.SIGHUP, ignored)
    assert process.returncode == 0, rest


@pytest.mark.slow
def test_a_run_without_save_on_signal_reports_it(tmp_path):
    with training(tmp_path, "--set", "save.on_signal=false") as process:
        process.send_signal(signal.SIGTERM)
        rest = process.stdout.read()
    assert process.returncode == 75, rest
    assert "SIGTERM: stopping without saving after this step" in rest


@pytest.mark.slow
def test_a_killed_rank_is_reported_first_and_the_run_resumes_from_its_last_checkpoint(tmp_path):
    with training(tmp_path, "--nproc", "2", "--max-restarts", "1") as process:
        os.kill(ranks(process)[1], signal.SIGKILL)
        lines = []
        for line in process.stdout:
            lines.append(line.rstrip())
            if line.startswith("resumed"):
                break
        errors = [line for line in lines if line.startswith("error")]
        assert errors == [
            f"error: rank 1 on {socket.gethostname()} died: killed by SIGKILL "
            "(often because the machine was out of memory)"
        ]
        again = [line for line in lines if line.startswith("restart")]
        assert len(again) == 1 and again[0].startswith("restart 1 of 1 from step ")
        name = lines[-1].split()[2].rstrip(",")  # resumed from step-00000020, written by ...
        assert str(manifest.step_of(name)) == again[0].split()[-1]
        os.kill(ranks(process)[0], signal.SIGKILL)
        rest = process.stdout.read()
    assert process.returncode == 1, rest
    assert rest.count("error:") == 1
    assert rest.splitlines()[-1] == RESUME_HINT.replace("; resume", "; details: mine/log.txt; resume")


@pytest.mark.slow
def test_closing_the_terminal_saves_the_run(tmp_path):
    (tmp_path / "mine.jsonl").write_text(REQUESTS)
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(tmp_path)
        os.environ.update(environment())
        command = [sys.executable, "-m", "launcher", *ARGS, "--nproc", "1"]
        os.execv(sys.executable, command)
    shown = b""
    while b"saved" not in shown:
        shown += os.read(terminal, 1 << 12)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 75
    last = (tmp_path / "mine" / "last").resolve().name
    assert checkpoints(tmp_path)[-1] == manifest.step_of(last)


@pytest.mark.slow
def test_a_full_disk_below_stdout_does_not_change_how_a_run_ends(program, tmp_path):
    (tmp_path / "mine.jsonl").write_text(REQUESTS)
    with open("/dev/full", "w") as full:
        process = program.start(*ARGS, "--max-steps", "3", stdout=full)
    _, error = process.communicate()
    assert process.returncode == 0, error
    assert checkpoints(tmp_path) == [3]
