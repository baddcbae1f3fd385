"""Signal handlers: deferred, and restored; what a signal that ends a command removes."""

import os
import queue
import signal

import pytest

from gearshift.launcher.base.signals import (
    ENDING,
    Answer,
    ProcessPhase,
    Signals,
    Stopped,
    deferred,
    handling,
    heeded,
    phase,
)
from gearshift.launcher.base.temporary import temporary_folder
from tests.waiting import LIMIT_S


def test_a_deferred_signal_is_handled_at_the_end():
    lines = []
    with pytest.raises(KeyboardInterrupt), deferred():
        os.kill(os.getpid(), signal.SIGINT)
        lines.append("came to its end")
    assert lines == ["came to its end"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL])
def test_a_hangup_that_nohup_ignores_is_left_ignored(hangups, handler):
    signal.signal(signal.SIGHUP, handler)
    is_heeded = handler is signal.SIG_DFL
    assert heeded() == [n for n in ENDING if is_heeded or n is not signal.SIGHUP]
    with deferred():
        assert (signal.getsignal(signal.SIGHUP) is handler) != is_heeded


def test_the_part_that_trains_takes_a_signal_also_while_others_are_deferred():
    signals = queue.Queue()
    with phase(ProcessPhase.TRAINS, signals.put), deferred():
        signal.raise_signal(signal.SIGTERM)
    assert signals.get(timeout=LIMIT_S) is signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_job_starts_until_it_trains_and_ends_after_that():
    handler = Signals()
    with handling(heeded(), handler):
        handler.start_job(lambda code, text: True)
        with phase(ProcessPhase.COMMAND):
            assert handler.answer(signal.SIGTERM) is Answer.EXIT
            with phase(ProcessPhase.TRAINS, print):
                assert handler.answer(signal.SIGTERM) is Answer.TAKE
            assert handler.answer(signal.SIGTERM) is Answer.IGNORE
    assert handler.answer(signal.SIGTERM) is Answer.IGNORE


def test_a_forced_end_removes_a_temporary_folder(tmp_path):
    handler = Signals()
    with handling([signal.SIGTERM], handler), temporary_folder("run-", tmp_path) as folder:
        assert folder.is_dir()
        handler.clean_up()
        assert not folder.exists()


def test_a_signal_removes_a_temporary_folder_that_is_being_made(tmp_path, monkeypatch):
    def make(prefix, dir):
        folder = dir / prefix
        folder.mkdir()
        signal.raise_signal(signal.SIGTERM)
        return folder

    monkeypatch.setattr("gearshift.launcher.base.temporary.mkdtemp", make)
    handler = handling([signal.SIGTERM], Signals())
    with handler, pytest.raises(Stopped), temporary_folder("run-", tmp_path):
        raise AssertionError("the signal comes before")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("number", "code"), [("SIGINT", 130), ("SIGTERM", 75), ("SIGUSR1", 75), ("SIGHUP", 75)]
)
def test_ctrl_c_is_130_and_every_other_signal_says_run_again(number, code):
    handler = Signals()
    handler.arrived = signal.Signals[number]
    assert handler.code == code
