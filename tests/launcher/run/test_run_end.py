"""Reports of failed ranks, and their transfer to the supervisor."""

import errno
import math
import os
from dataclasses import replace
from pathlib import Path

import pytest

from gearshift.engines.base import EngineError, PeersMissing
from gearshift.launcher.base import signals
from gearshift.launcher.base.diagnostics import Diagnostic, SettingsError
from gearshift.launcher.config.provenance import Batching
from gearshift.launcher.run import run_end, run_error
from gearshift.launcher.run.supervisor import without_report
from gearshift.models.base import DataError
from gearshift.training.storage import StorageError


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (DataError("x.txt is empty"), "invalid input", 2),
        (EngineError("no GPU here"), "invalid input", 2),
        (SettingsError([Diagnostic("a key")]), "invalid input", 2),
        # A retry may help: a node that connects late is no error of the arguments.
        (PeersMissing("rank 3 did not come"), "peer lost", 1),
        (KeyboardInterrupt(), "stopped", 130),
        (signals.Stopped("SIGTERM"), "stopped", 75),
        (ValueError("odd"), "failed", 1),
        (RuntimeError("Connection reset by peer"), "peer lost", 1),
        (StorageError(Path("x"), OSError(5, "I/O error")), "failed", 1),
    ],
)
def test_each_kind_of_exit_has_its_code_and_its_cause(error, kind, code):
    end = run_error.of_error(error, 3)
    assert (end.kind, end.exit_code) == (kind, code)
    cause = (
        "another rank" if isinstance(error, RuntimeError) else str(error).removeprefix("error: ")
    )
    assert cause in end.text and (code != 1 or end.text.startswith("error: "))
    assert bool(end.trace) == (code == 1 and not isinstance(error, StorageError))


def test_a_report_is_read_as_it_was_written(tmp_path):
    written = run_error.of_error(ValueError("odd"), 3)
    written.save(tmp_path)
    assert run_end.load(tmp_path, 3) == written
    assert run_end.load(tmp_path, 2) is None


def test_numbers_that_json_lacks_are_texts_in_a_report(tmp_path):
    metrics = {"val_loss": math.nan, "score": -math.inf, "undefined": None}
    run_end.agreed({"exit_code": 0, "metrics": metrics}, 0).save(tmp_path)
    found = run_end.load(tmp_path, 0).outcome["metrics"]
    assert found == {"val_loss": "NaN", "score": "-Infinity", "undefined": None}


@pytest.mark.parametrize(
    ("kind", "kills", "expected"),
    [
        ("killed", 1, "out of memory"),
        ("failed", 2, "out of memory"),  # of a data-loader worker that died
        ("killed", 0, "killed"),
        ("stopped", 1, "stopped"),
    ],
)
def test_a_failure_is_out_of_memory_if_the_kernel_killed_a_process(kind, kills, expected):
    batches = Batching(global_batch=16, micro_batch=8, accumulation=1, world_size=2)
    ending = replace(without_report(1, -9, "its output", set()), kind=kind)
    report = run_end.out_of_memory(ending, kills, batches)
    assert (report.kind, report.exit_code, report.trace) == (expected, 1, "its output")
    if expected == "out of memory":
        assert report.text.endswith("  fix           --batch-size 4 --set train.global_batch=16")
    else:
        assert report == ending


def test_a_disk_that_is_full_ends_a_task_with_a_writer_of_its_own_in_one_sentence(tmp_path):
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG):
        error = OSError(number, os.strerror(number), str(tmp_path / "classes.json"))
        end = run_error.of_error(error, 0)
        assert (end.kind, end.exit_code, end.trace) == ("failed", 1, "")
        assert end.text.startswith(f"error: cannot write {tmp_path}/classes.json: ")
    assert "Traceback" not in run_error.of_error(OSError(errno.ENOSPC, "full"), 0).trace
    assert run_error.of_error(OSError(errno.EINVAL, "odd"), 0).trace
