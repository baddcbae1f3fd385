"""What a signal that ends a command removes."""

import signal

import pytest

from launcher.base.ending import EndingSignals, temporary_folder
from launcher.base.signals import Stopped, handling


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
