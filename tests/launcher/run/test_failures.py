"""Reports of failed ranks, and their transfer to the supervisor."""

import socket

import pytest

from engines.base import EngineError, PeersMissing
from launcher.base.diagnostics import Diagnostic, SettingsError
from launcher.run import failures
from models.base import DataError
from training.storage import StorageError

HOST = socket.gethostname()


@pytest.mark.parametrize(
    ("error", "kind", "code", "text"),
    [
        (DataError("x.txt is empty"), "invalid input", 2, "error: x.txt is empty"),
        (EngineError("no GPU here"), "invalid input", 2, "error: no GPU here"),
        (SettingsError([Diagnostic("a key")]), "invalid input", 2, "error: a key"),
        # A retry may help: a node that connects late is no error of the arguments.
        (PeersMissing("rank 3 did not come"), "peer lost", 1, "error: rank 3 did not come"),
        (KeyboardInterrupt(), "stopped", 130, "interrupted before anything was saved"),
        (
            failures.Stopped("SIGTERM"),
            "stopped",
            75,
            "stopped by SIGTERM before anything was saved; run again",
        ),
        (ValueError("odd"), "failed", 1, f"error: rank 3 on {HOST} failed: ValueError: odd"),
        (SystemExit(4), "failed", 1, f"error: rank 3 on {HOST} failed: SystemExit: 4"),
        (
            RuntimeError("Connection reset by peer"),
            "peer lost",
            1,
            f"error: rank 3 on {HOST} lost another rank",
        ),
    ],
)
def test_each_kind_of_exit_has_its_code_and_text(error, kind, code, text):
    report = failures.failed(error, 3)
    assert (report.kind, report.exit_code, report.text) == (kind, code, text)
    assert bool(report.trace) == (code == 1)


def test_a_full_run_folder_is_reported_without_a_traceback(tmp_path):
    report = failures.failed(StorageError(tmp_path / "log.txt", OSError(28, "No space left")), 0)
    assert (report.kind, report.exit_code, report.trace) == ("failed", 1, "")
    assert report.text.startswith(f"error: cannot write {tmp_path}/log.txt: No space left")


@pytest.mark.parametrize(
    ("code", "text"), [(0, ""), (1, "error: the loss is not finite"), (75, ""), (130, "")]
)
def test_of_agreed_exits_only_a_failure_is_reported(code, text):
    report = failures.ended({"exit_code": code, "reason": "the loss is not finite"}, 0)
    assert (report.kind, report.exit_code, report.text) == ("ended", code, text)


def test_a_report_is_read_as_it_was_written(tmp_path):
    written = failures.failed(ValueError("odd"), 3)
    written.save(tmp_path)
    assert failures.load(tmp_path, 3) == written
    assert failures.load(tmp_path, 2) is None
