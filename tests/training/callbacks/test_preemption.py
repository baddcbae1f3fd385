"""Signals and deadlines request a save and the end of the run."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from gearshift.training.callbacks.base import Action
from gearshift.training.callbacks.preemption import Deadline, Preemption
from tests.training.facts import outcome, step, train_plan
from tests.waiting import LIMIT_S

pytestmark = pytest.mark.usefixtures("hangups")

ROOT = Path(__file__).parents[3]
SAVE_AND_END = {
    **dict.fromkeys((signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP), Action.SIGNAL | Action.SAVE),
    signal.SIGINT: Action.INTERRUPT | Action.SAVE,
}


class Program:
    """A running tests.training.signalled."""

    def __init__(self, where):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.training.signalled", where],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.child = int(self.read().split()[1])

    def read(self):
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def write(self, line):
        """The response to `line`."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self.read()

    def requested_action(self):
        """The requested action and events of a step, once there is one."""
        end = time.monotonic() + LIMIT_S
        while (reply := self.write("step")) == "0":
            assert time.monotonic() < end, "the signal was not noticed"
        number, _, events = reply.partition(" ")
        return Action(int(number)), events

    def close(self):
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def start():
    """Starts programs, which end with the test."""
    started = []

    def begin(where):
        started.append(Program(where))
        return started[-1]

    yield begin
    for program in started:
        program.close()


@pytest.fixture
def program(start):
    return start("main")


@pytest.mark.parametrize("number", list(SAVE_AND_END))
def test_a_signal_requests_a_save_and_the_end_from_then_on_and_is_reported_once(program, number):
    assert program.write("step") == "0"
    program.process.send_signal(number)
    for _ in range(2):
        assert program.requested_action() == (SAVE_AND_END[number], f"signal ['{number.name}']")


def test_a_second_interrupt_ends_a_process_blocked_outside_python(start):
    busy = start("busy")
    end = time.monotonic() + LIMIT_S
    while busy.process.poll() is None and time.monotonic() < end:
        busy.process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            busy.process.wait(0.05)
    assert busy.process.poll() == 130


def test_a_signal_to_a_forked_worker_is_ignored(start):
    program = start("forked")
    for number in SAVE_AND_END:
        os.kill(program.child, number)
    os.kill(program.child, signal.SIGUSR2)
    assert program.write("worker") == "alive"  # it has received all of them
    program.process.send_signal(signal.SIGUSR1)
    assert program.requested_action() == (SAVE_AND_END[signal.SIGUSR1], "signal ['SIGUSR1']")


@pytest.mark.parametrize("where", ["main", "thread"])
def test_handlers_are_restored_afterwards_and_not_installed_outside_the_main_thread(start, where):
    program = start(where)
    assert program.write("step") == "0"
    assert program.write("end") == "ended"
    program.process.send_signal(signal.SIGTERM)
    assert program.process.wait(LIMIT_S) == -signal.SIGTERM


def test_a_deadline_requests_a_save_and_the_end_and_is_reported_once():
    events, times = [], iter([4.0, 4.9, 5.0, 6.0])
    callback = Deadline(5.0, lambda kind, facts: events.append(kind), lambda: next(times))
    requested = [callback.step(step(n)) for n in range(4)]
    assert requested == [Action.NOTHING] * 2 + [Action.SIGNAL | Action.SAVE] * 2
    assert events == ["deadline"]


class Exited(Exception):
    """The process would have ended, with this code."""


INT, TERM = signal.SIGINT, signal.SIGTERM
SAVE, BY_SIGNAL, BY_INTERRUPT = Action.SAVE, Action.SIGNAL, Action.INTERRUPT


@pytest.mark.parametrize(
    ("arrivals", "expected", "names"),
    [
        ([(0.0, TERM)], SAVE | BY_SIGNAL, ["SIGTERM"]),
        ([(0.0, TERM), (9.0, TERM)], SAVE | BY_SIGNAL, ["SIGTERM"]),
        ([(0.0, INT)], SAVE | BY_INTERRUPT, ["SIGINT"]),
        # One press, which arrives twice: of the terminal and of the parent.
        ([(7.0, INT), (7.5, INT)], SAVE | BY_INTERRUPT, ["SIGINT"]),
        ([(7.0, INT), (7.6, INT)], None, []),
        # From the first on, not from the newest.
        ([(7.0, INT), (7.4, INT), (7.8, INT)], None, []),
        ([(0.0, TERM), (9.0, INT)], SAVE | BY_SIGNAL | BY_INTERRUPT, ["SIGTERM", "SIGINT"]),
        ([(0.0, INT), (9.0, TERM)], SAVE | BY_SIGNAL | BY_INTERRUPT, ["SIGINT", "SIGTERM"]),
        ([(0.0, INT), (9.0, TERM), (9.1, INT)], None, []),
    ],
)
def test_signals_add_up_and_only_a_second_press_ends_at_once(
    monkeypatch, arrivals, expected, names
):
    events, takers, listening = [], [], []

    @contextmanager
    def listen(take):
        takers.append(take)
        listening.append(True)
        yield
        listening.clear()

    def leave(code):
        raise Exited(code)

    monkeypatch.setattr(os, "_exit", leave)
    callback = Preemption(lambda kind, facts: events.append((kind, facts)), listen, saves=False)
    callback.start(train_plan())
    assert callback.requested() == Action.NOTHING and events == []
    try:
        for at, arrived in arrivals:
            monkeypatch.setattr(time, "monotonic", lambda: at)  # noqa: B023
            takers[0](arrived)
    except Exited as exited:
        assert (expected, exited.args) == (None, (130,))
        return
    assert [callback.requested() for _ in range(2)] == [expected] * 2
    assert events == [("signal", {"names": names, "saves": False})]
    callback.end(outcome())
    assert listening == []
