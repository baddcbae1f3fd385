"""What a signal that ends a command removes."""

import signal

import pytest

from launcher.base.ending import EndingSignals, temporary_folder
from launcher.base.signals import Stopped, handling
from tests.launcher.given import python


def test_a_forced_end_removes_a_temporary_folder(tmp_path):
    handler = EndingSignals()
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

    monkeypatch.setattr("launcher.base.ending.mkdtemp", make)
    handler = handling([signal.SIGTERM], EndingSignals())
    with handler, pytest.raises(Stopped), temporary_folder("run-", tmp_path):
        raise AssertionError("the signal comes before")
    assert not list(tmp_path.iterdir())


def test_a_temporary_folder_of_a_killed_process_is_removed_and_of_a_living_one_stays(tmp_path):
    work = f"""
import os, pathlib, signal
from launcher.base.ending import temporary_folder
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
