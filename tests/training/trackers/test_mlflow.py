"""Runs on an MLflow server: one MLflow run for all generations, each step once."""

import json
import math
import subprocess
import sys
from importlib.util import find_spec

import pytest

from gearshift.launcher.__main__ import main
from gearshift.launcher.base.diagnostics import PROGRAM
from gearshift.models.base import Picture, Predictions
from tests.training.trackers.conftest import PNG
from tests.training.trackers.tracked_run import Generation

if find_spec("mlflow") is None:  # imported where it is used, since that takes seconds
    pytest.skip("needs MLflow", allow_module_level=True)


def generation(folder, **changes):
    return Generation(folder, ("mlflow:try",), **changes)


def only(server):
    (run,) = server.runs.values()
    return run


def losses(server):
    return only(server).points("train/loss")


def test_a_run_has_settings_metrics_samples_an_end_and_nothing_of_the_machine(mlflow, tmp_path):
    run = generation(tmp_path / "mine", tracking={"checkpoints": "best"}).begin().until_open()
    run.log(1, parts={"ce": 2.0}, loss=math.nan).log(2).evaluate(2)
    shown = Predictions(("given", "gives"), [["a", 1.0]], [Picture("page", "one page", PNG)])
    run.callbacks.predicted(shown, 2)
    run.save(2).end()
    sent = only(mlflow)
    assert mlflow.experiments == {"try": sent.experiment}
    assert run.printed == [("tracked", f"{mlflow.url}/#/experiments/1/runs/{sent.id}")]
    assert (sent.name, sent.status) == ("mine", "FINISHED")
    assert sent.params["optim.lr"] == "0.001" and sent.params["run.world_size"] == "2"
    assert [step for step, _ in losses(mlflow)] == [1, 2] and math.isnan(losses(mlflow)[0][1])
    assert sent.points("train/ce") == [(1, 2.0)] and sent.points("eval/loss") == [(2, 2.25)]
    assert sent.points("best/value") == [(0, 2.25)] and sent.tags["result/status"] == "completed"
    assert sent.tags["engine"] == "ddp"
    names = {name.partition("/")[2].partition("+")[0] for name in mlflow.artifacts}
    weights = {f"checkpoints/step-00000002/{n}" for n in ("model.safetensors", "manifest.json")}
    assert names == {"samples/step-2.json", "images/samples~page", *weights}
    for word in ("mlflow.user", "mlflow.source", "git", "hostname"):
        assert word.encode() not in bytes(mlflow.bytes)


NAMES = [
    "train/f1 @ 0.5",
    "train//a",
    "train/../b",
    "/c/",
    "...",
    "a\nb",
    "x" * 500,
    "train/ü",
    "..d",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_mlflow_refuses_is_changed_once_with_a_warning(name, caplog):
    from mlflow.utils.validation import _validate_metric

    from gearshift.training.trackers.mlflow import accepted

    accepted.cache_clear()
    for _ in range(2):
        _validate_metric(accepted(name), 1.0, 0, 0)
    assert len(caplog.records) == (accepted(name) != name)
    assert accepted("train/loss_en:a-b c.d") == "train/loss_en:a-b c.d"


@pytest.mark.slow
def test_generations_and_the_command_track_make_one_run_without_gaps(mlflow, tmp_path):
    generation(tmp_path).begin().until_open().log(*range(1, 101)).stop()  # more than one request
    assert only(mlflow).status == "SCHEDULED"
    generation(tmp_path).begin(first_step=90).until_open().log(*range(91, 103)).evaluate(102).die()
    assert only(mlflow).status == "FAILED"
    mlflow.fails = 500
    run = generation(tmp_path).begin(first_step=101).log(102, 103).evaluate(103).end()
    (warning,) = run.warnings
    assert f"send {tmp_path}" in warning
    mlflow.fails = None
    (tmp_path / "settings.yaml").write_text("mode: lite\n")
    (tmp_path / "origins.json").write_text(
        json.dumps({"track": {"value": ["mlflow:try"], "layer": "default", "origin": ""}})
    )
    command = [sys.executable, *PROGRAM.split()[1:], "track", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{mlflow.url}/#/experiments/1/runs/{only(mlflow).id}\n"
    assert [step for step, _ in losses(mlflow)] == list(range(1, 104))
    assert only(mlflow).status == "FINISHED"


@pytest.mark.slow
def test_a_server_that_fails_for_a_while_is_one_warning_and_gets_all_lines(mlflow, tmp_path):
    mlflow.fails = "drop"
    run = generation(tmp_path).begin().log(1).until_open()
    ((kind, _),) = run.printed
    assert kind == "warning"
    mlflow.fails = None
    run.log(2).end()
    assert [step for step, _ in losses(mlflow)] == [1, 2]
    assert len(run.warnings) == 1


def test_a_name_that_is_no_tracker_is_refused(capsys):
    assert main(["track", "run", "--to", "mflow:try"]) == 2
    assert "  where         command line: --to mflow:try" in capsys.readouterr().err.splitlines()
