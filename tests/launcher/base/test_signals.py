"""Signal handlers: deferred, and restored; what a signal that ends a command removes."""

import os
import signal
import subprocess
import sys

import pytest

from launcher.base.signals import Signals, Stopped, deferred, handling, temporary_folder
from tests.launcher.given import python
from training.callbacks.preemption import ENDING, heeded


def test_a_signal_handler_is_restored():
    before = signal.getsignal(signal.SIGUSR1)
    seen = []
    with handling([signal.SIGUSR1], lambda number, frame: seen.append(number)):
        signal.raise_signal(signal.SIGUSR1)
    assert seen == [signal.SIGUSR1]
    assert signal.getsignal(signal.SIGUSR1) is before


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


WITHOUT = """
import signal
import subprocess
import sys
del signal.SIGHUP, signal.SIGUSR1
import launcher.__main__, launcher.compare.runner, launcher.run.supervisor, launcher.run.rank
import launcher.continual.stop_conditions, launcher.saved_runs.rerun, training.trackers.follow
from training.callbacks.preemption import ENDING, heeded
assert list(ENDING) == heeded() == [signal.SIGINT, signal.SIGTERM]
"""


def test_a_system_without_some_of_the_signals_has_the_others():
    subprocess.run([sys.executable, "-c", WITHOUT], check=True)


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

    monkeypatch.setattr("launcher.base.signals.mkdtemp", make)
    handler = handling([signal.SIGTERM], Signals())
    with handler, pytest.raises(Stopped), temporary_folder("run-", tmp_path):
        raise AssertionError("the signal comes before")
    assert not list(tmp_path.iterdir())


def test_a_temporary_folder_of_a_killed_process_is_removed_and_of_a_living_one_stays(tmp_path):
    work = f"""
import os, pathlib, signal
from launcher.base.signals import temporary_folder
with temporary_folder('.run.x[1]-', pathlib.Path({str(tmp_path)!r})) as folder:
    (folder / 'model').touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert python("-c", work).returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    link = tmp_path / ".run.x[1]-link"
    link.symlink_to(tmp_path)
    with temporary_folder(".run.x[1]-", tmp_path) as first:
        assert not left.exists()
        with temporary_folder(".run.x[1]-", tmp_path) as second:
            assert first.is_dir() and second.is_dir()
    assert list(tmp_path.iterdir()) == [link]
