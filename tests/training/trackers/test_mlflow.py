"""Runs on an MLflow server: one MLflow run for all generations, each step once."""

import json
import math
import subprocess
import sys

import pytest

from launcher.__main__ import main
from launcher.base.diagnostics import PROGRAM
from models.base import Picture, Predictions
from tests.training.trackers.conftest import PNG
from tests.training.trackers.tracked_run import Generation
from training.trackers import process_tracker

pytest.importorskip("mlflow")
NAMES = ("mlflow:try",)
PATIENT = {"wait_s": 120}


def generation(folder, **changes):
    return Generation(folder, NAMES, **{"tracking": PATIENT, **changes})


def only(server):
    (run,) = server.runs.values()
    return run


def losses(server):
    return only(server).points("train/loss")


def test_a_run_has_settings_metrics_samples_an_end_and_nothing_of_the_machine(mlflow, tmp_path):
    mine = tmp_path / "mine"
    checkpoint = mine / "checkpoints" / "step-00000002"
    checkpoint.mkdir(parents=True)
    for name in ("model.safetensors", "manifest.json", "rank-00000.safetensors"):
        (checkpoint / name).write_text(name)
    (mine / "best").symlink_to(checkpoint)
    run = generation(mine, tracking=PATIENT | {"checkpoints": "best"}).begin().until_open()
    run.log(1, parts={"ce": 2.0}, loss=math.nan).log(2).evaluate(2)
    shown = Predictions(("given", "gives"), [["a", 1.0]], [Picture("page", "one page", PNG)])
    for callback in run.callbacks:
        callback.predicted(shown, 2)
        callback.saved(checkpoint, 2, 0.5)
        callback.event("throttled", {"text": "ram 97"})
    run.end()
    sent = only(mlflow)
    assert mlflow.experiments == {"try": sent.experiment}
    assert run.printed == [("tracked", f"{mlflow.url}/#/experiments/1/runs/{sent.id}")]
    assert (sent.name, sent.status) == ("mine", "FINISHED")
    assert sent.params["optim.lr"] == "0.001" and sent.params["run.world_size"] == "2"
    assert [step for step, _ in losses(mlflow)] == [1, 2] and math.isnan(losses(mlflow)[0][1])
    assert sent.points("train/ce") == [(1, 2.0)] and sent.points("eval/loss") == [(2, 2.25)]
    assert sent.points("best/value") == [(0, 2.25)] and sent.tags["result/status"] == "completed"
    assert sent.tags["event"] == "throttled: text ram 97" and sent.tags["engine"] == "ddp"
    names = {name.partition("/")[2].partition("+")[0] for name in mlflow.artifacts}
    of_checkpoint = {
        f"checkpoints/step-00000002/{n}" for n in ("model.safetensors", "manifest.json")
    }
    assert names == {"samples/step-2.json", "images/samples~page", *of_checkpoint}
    for word in ("mlflow.user", "mlflow.source", "git", "hostname"):
        assert word.encode() not in bytes(mlflow.bytes)


@pytest.mark.slow
def test_generations_make_one_run_without_repeated_steps_or_gaps(mlflow, tmp_path):
    generation(tmp_path).begin().until_open().log(*range(1, 101)).stop()  # more than one request
    assert only(mlflow).status == "SCHEDULED"
    generation(tmp_path).begin(first_step=90).until_open().log(*range(91, 103)).evaluate(102).die()
    assert only(mlflow).status == "FAILED"
    generation(tmp_path).begin(first_step=101).log(102, 103).evaluate(103).end()
    assert [step for step, _ in losses(mlflow)] == list(range(1, 104))
    assert only(mlflow).status == "FINISHED"


@pytest.mark.slow
def test_a_server_that_fails_for_a_while_gets_all_lines(mlflow, tmp_path, monkeypatch):
    monkeypatch.setattr(process_tracker, "_RETRY_S", math.inf)
    mlflow.fails = "drop"
    run = generation(tmp_path).begin().log(1).until_open()
    ((kind, text),) = run.printed
    assert kind == "warning" and "the run continues, and sends what it lacks later" in text
    mlflow.fails = None
    monkeypatch.setattr(process_tracker, "_RETRY_S", 0)
    run.log(2).end()
    assert [step for step, _ in losses(mlflow)] == [1, 2]
    assert len(run.warnings) == 1


@pytest.mark.slow
def test_the_command_track_sends_what_a_server_lacks(mlflow, tmp_path):
    mlflow.fails = 500
    run = generation(tmp_path).begin().log(1, 2).end()
    (warning,) = run.warnings
    assert f"to send what it lacks:  send {tmp_path}" in warning
    mlflow.fails = None
    (tmp_path / "settings.yaml").write_text("mode: lite\n")
    (tmp_path / "origins.json").write_text(
        json.dumps({"track": {"value": ["mlflow:try"], "layer": "default", "origin": ""}})
    )
    command = [sys.executable, *PROGRAM.split()[1:], "track", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{mlflow.url}/#/experiments/1/runs/{only(mlflow).id}\n"
    assert [step for step, _ in losses(mlflow)] == [1, 2]


def test_another_tracker_than_those_with_a_server_is_refused_with_the_nearest(capsys):
    assert main(["track", "run", "--to", "mflow:try"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "error: --to mflow:try is no tracker with a server"
    assert lines[3:] == ["  did you mean  mlflow", "  fix           --to mlflow:try"]
    assert main(["track", "run", "--to", "tensorboard"]) == 2
    assert "did you mean" not in capsys.readouterr().err
