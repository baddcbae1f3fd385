"""Two small ranks (tests/launcher/ranks.py) under the supervisor."""

import os
import re
import signal
import subprocess
import sys
import threading

import pytest

from gearshift.launcher.run import supervisor
from gearshift.launcher.run_folder.run_plan import RunPlan
from tests.launcher.given import resolved
from tests.waiting import until

TWO_RANKS = resolved("train.seed=7", "train.global_batch=8", nproc="2", lr="1e-5")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a scene in two processes; gives the end."""
    monkeypatch.setattr(supervisor, "MODULE", "tests.launcher.ranks")

    def run_scene(scene, threads=1):
        monkeypatch.setenv("SCENE", scene)
        return supervisor.supervise(
            RunPlan(TWO_RANKS, folder=tmp_path, threads=threads, console=True)
        )

    return run_scene


def log_of(folder):
    return (folder / "log.txt").read_text()


def send_when(folder, number, *states):
    """Signals this process when both ranks are in a state, as a terminal or a scheduler would."""

    def send():
        for state in states:
            until(lambda: len(list(folder.glob(f"{state}-*"))) == 2)  # noqa: B023
            os.kill(os.getpid(), number)

    threading.Thread(target=send, daemon=True).start()


def test_every_rank_gets_equal_settings_and_only_the_first_prints_to_the_terminal(
    run, tmp_path, capfd
):
    assert run("settings", threads=3).exit_code == 0
    assert (tmp_path / "seen-0").read_text() == "[7, 1e-05, 8, True] 3"
    assert (tmp_path / "seen-1").read_text() == "[7, 1e-05, 8, False] 3"
    assert "rank 0 of 2 prints" in capfd.readouterr().out
    assert log_of(tmp_path) == "[rank 1]\nrank 1 of 2 prints\n"


@pytest.mark.slow
def test_ranks_listen_on_loopback_only(run, tmp_path):
    end = run("listens")
    assert (end.kind, end.exit_code) == ("ended", 0), end.text
    assert [(tmp_path / f"listen-{rank}").read_text() for rank in (0, 1)] == ["127.0.0.1"] * 2


def test_the_cause_is_reported_and_not_the_rank_that_lost_its_peer(run, tmp_path):
    """By gloo's own message about a lost peer."""
    end = run("gloo")
    assert end.rank == 1 and "the second rank failed" in end.text
    assert "rank 0 on" in log_of(tmp_path) and "lost another rank" in log_of(tmp_path)
    assert (tmp_path / "sum").read_text() == "3.0"  # they had found each other


FAILED = r"rank 1 on \S+ failed: ValueError: the second rank failed"
KILLED = r"rank 1 on \S+ died: killed by SIGKILL .*"
DATA = "data/mine.txt is empty; a text of at least one line"
FROZEN = r"rank 1 on \S+ does not answer the other ranks: its process \d+ is \S+"


@pytest.mark.parametrize(
    ("scene", "code", "text", "trace"),
    [
        ("error", 1, FAILED, '.*raise ValueError\\("the second rank failed"\\).*'),
        ("killed", 1, KILLED, "rank 1 of 2 prints"),
        ("data", 2, DATA, ""),
        pytest.param("frozen", 1, FROZEN, ".*in wait_forever.*", marks=pytest.mark.slow),
    ],
)
def test_the_rank_at_fault_is_named_with_its_stack_and_the_others_end(
    run, tmp_path, scene, code, text, trace
):
    end = run(scene)
    assert end.exit_code == code
    assert re.fullmatch(f"error: {text}", end.text)
    assert re.fullmatch(trace, end.trace, re.DOTALL)
    if (file := tmp_path / "pid").exists():  # of a rank that waits for ever
        with pytest.raises(ProcessLookupError):
            os.kill(int(file.read_text()), 0)


def test_a_rank_whose_supervisor_has_ended_says_nothing(tmp_path):
    rank = [sys.executable, "-m", "gearshift.launcher.run.rank", str(tmp_path / "removed")]
    done = subprocess.run(rank, env={**os.environ, "RANK": "0"}, capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (75, "")


def test_a_rank_exits_if_its_supervisor_was_killed_before_the_check(tmp_path):
    exited = subprocess.Popen([sys.executable, "-c", ""])
    exited.wait()
    supervisor.save_plan(RunPlan(TWO_RANKS, folder=tmp_path), tmp_path)
    rank_environment = {"RANK": "0", "WORLD_SIZE": "2", "SCENE": "signal"}
    rank = [sys.executable, "-m", "tests.launcher.ranks", str(tmp_path)]
    environment = {**os.environ, **rank_environment, supervisor.SUPERVISOR: str(exited.pid)}
    assert subprocess.run(rank, env=environment).returncode in (-signal.SIGTERM, 0)


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 75), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)],
)
@pytest.mark.usefixtures("hangups")
def test_a_signal_reaches_the_ranks_which_save_and_end(run, tmp_path, number, code):
    before = signal.getsignal(number)
    send_when(tmp_path, number, "ready")
    end = run("signal")
    assert (end.kind, end.exit_code) == ("ended", code)
    assert end.signals == {number}  # so that nothing is restarted
    assert {path.name for path in tmp_path.glob("saved-*")} == {"saved-0", "saved-1"}
    assert signal.getsignal(number) is before


@pytest.mark.slow
def test_a_second_interrupt_kills_unresponsive_ranks(run, tmp_path):
    send_when(tmp_path, signal.SIGINT, "ready", "interrupted")
    assert run("stuck").exit_code == 130
