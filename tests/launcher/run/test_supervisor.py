"""Two small ranks (tests/launcher/ranks.py) under the supervisor."""

import itertools
import os
import re
import signal
import subprocess
import sys
import threading

import psutil
import pytest

from gearshift.launcher.run import run_end, supervisor
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


ENDS = {
    # How a process ends, what it has reported, and the exit code of a run that it decides.
    "ended": ("exit 0", "ended", 0.0, 0),
    "killed": ("kill -KILL $$", None, None, 1),
    "left": ("exit 3", None, None, 1),
    "invalid input": ("exit 2", "invalid input", 1.0, 2),
    "failed": ("exit 1", "failed", 2.0, 1),
    "out of memory": ("exit 1", "out of memory", 3.0, 1),
    "stopped": ("exit 75", "stopped", 0.5, 75),
    "peer lost": ("exit 1", "peer lost", 0.1, 1),
    "abort": ("kill -ABRT $$", None, None, 1),
}
"""The end that decides is the first: of ends that report, the causes in the order of their time."""
DECIDING = [
    ["killed", "left"],
    ["invalid input"],
    ["failed"],
    ["out of memory"],
    ["stopped"],
    ["peer lost", "abort"],
    ["ended"],
]


def of_ends(folder, names):
    """The processes of a run that end so, one after the other."""
    ranks = supervisor.RankProcesses(folder)
    for rank, name in enumerate(names):
        command, kind, at, code = ENDS[name]
        if kind:
            run_end.build(kind, rank, name, at=at, exit_code=code).save(folder)
        ranks.processes.append(subprocess.Popen(["sh", "-c", command], start_new_session=True))
    return ranks


@pytest.mark.parametrize(
    ("first", "later"),
    [
        pair
        for i, j in itertools.combinations(range(len(DECIDING)), 2)
        for pair in itertools.product(DECIDING[i], DECIDING[j])
    ],
)
def test_the_end_that_decides_depends_on_what_happened_and_on_no_order(tmp_path, first, later):
    for names in ((first, later), (later, first)):
        folder = tmp_path / names[0]
        folder.mkdir()
        ranks = of_ends(folder, names)
        until(ranks.have_ended)
        end = ranks.first_failure()
        assert end.rank == names.index(first)
        assert end.exit_code == ENDS[first][3]
        assert supervisor._watch(ranks) == end


def test_where_no_rank_fails_the_end_is_that_of_rank_0(tmp_path):
    ranks = of_ends(tmp_path, ["ended"] * 3)
    until(ranks.have_ended)
    assert ranks.first_failure() is None
    end = supervisor._watch(ranks)
    assert (end.rank, end.kind, end.exit_code) == (0, "ended", 0)


@pytest.mark.parametrize(
    ("command", "sent", "kind", "code"),
    [
        ("kill -TERM $$", [signal.SIGTERM], "stopped", 75),
        ("kill -TERM $$", [], "killed", 1),
        ("kill -TERM $$", [signal.SIGUSR1], "killed", 1),
        ("exit 130", [signal.SIGINT], "stopped", 130),
        ("exit 130", [signal.SIGTERM], "killed", 1),
        ("kill -KILL $$", [signal.SIGTERM], "killed", 1),
    ],
)
def test_a_rank_that_dies_of_a_signal_was_stopped_if_it_was_forwarded(
    tmp_path, command, sent, kind, code
):
    ranks = supervisor.RankProcesses(tmp_path)
    ranks.signals.extend(sent)
    ranks.processes.append(subprocess.Popen(["sh", "-c", command], start_new_session=True))
    until(ranks.have_ended)
    assert (ranks.ends[0].kind, ranks.ends[0].exit_code) == (kind, code)


def test_a_stopped_rank_is_woken_and_gets_each_forwarded_signal_once(tmp_path):
    ready = tmp_path / "ready"
    script = f"n=0; trap 'n=$((n+1))' USR1; trap 'exit $n' TERM; touch {ready}; "
    ranks = supervisor.RankProcesses(tmp_path)
    command = ["sh", "-c", script + "while :; do sleep 0.01; done"]
    ranks.processes.append(subprocess.Popen(command, start_new_session=True))
    try:
        process = psutil.Process(ranks.processes[0].pid)
        until(ready.exists)
        process.suspend()
        until(lambda: process.status() == psutil.STATUS_STOPPED)
        ranks.signals.append(signal.SIGUSR1)
        for _ in range(3):
            ranks.forward_signals()
        until(lambda: process.status() != psutil.STATUS_STOPPED)
        process.suspend()
        until(lambda: process.status() == psutil.STATUS_STOPPED)
        ranks.signals.append(signal.SIGTERM)
        ranks.forward_signals()
        assert ranks.processes[0].wait(60) == 1
    finally:
        ranks.end()
