"""Runs on a W&B server: one W&B run for all generations, each step once."""

import json
import math
import subprocess
import sys

import psutil
import pytest

from launcher.base.diagnostics import PROGRAM
from tests.training.trackers.conftest import KEY
from tests.training.trackers.tracked_run import Generation
from training.trackers.metrics_reader import STEP


def only(server):
    (run,) = server.runs.values()
    return run


def steps(server):
    return [row[STEP] for row in only(server).rows]


def test_a_run_has_settings_rows_an_end_and_no_secret(server, tmp_path, monkeypatch):
    monkeypatch.setenv("OTHER_TOKEN", "hunter2hunter2")
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--password=opensesame"])
    generation = Generation(tmp_path / "mine").begin().until_open()
    generation.log(1, parts={"ce": 2.0}, loss=float("inf")).log(2).evaluate(2).end()
    run = only(server)
    assert (run.project, run.title, run.exit_code) == ("try", "mine", 0)
    assert run.config["optim"]["value"] == {"lr": 1e-3}
    assert run.config["origins"]["value"]["optim"] == {"lr": "config: mine.yaml:3"}
    first, second = run.rows
    assert first["train/ce"] == 2.0 and first["optim/lr"] == 1e-3
    assert first["perf/samples_per_s"] == 640 and first["train/loss"] == math.inf
    assert {"optim/grad_norm", "memory/host_bytes", "time/data_s", "time/step_s"} <= set(second)
    assert second["eval/loss"] == 2.25 and second[STEP] == second["_step"] == 2
    assert run.summary["best/value"] == 2.25 and run.summary["result/status"] == "completed"
    assert generation.printed == [("tracked", f"{server.url}/someone/try/runs/{run.id}")]

    files = [path for path in (tmp_path / "mine").rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    for content in [bytes(server.bytes), *(path.read_bytes() for path in files)]:
        for secret in (KEY, "hunter2hunter2", "opensesame"):
            assert secret.encode() not in content
    assert b"git" not in bytes(server.bytes) and b"requirements" not in bytes(server.bytes)


@pytest.mark.slow
def test_generations_make_one_run_without_repeated_steps_or_gaps(server, tmp_path):
    Generation(tmp_path).begin().log(1, 2, 3).stop()
    assert only(server).exit_code == 75
    Generation(tmp_path).begin(first_step=2).log(3, 4).evaluate(4).die()  # by kill -9, after step 4
    Generation(tmp_path).begin(first_step=3).log(4, 5).evaluate(5).end()
    assert steps(server) == [1, 2, 3, 4, 5]
    assert only(server).exit_code == 0


@pytest.mark.slow
def test_rows_that_a_preemption_lost_are_sent_by_the_next_generation(server, tmp_path):
    generation = Generation(tmp_path).begin().log(1).until_open()
    (process,) = [callback._process._process.pid for callback in generation.callbacks]
    for child in psutil.Process(process).children(recursive=True):
        child.terminate()  # as Slurm does to all processes of a step
    generation.log(2).log(3).stop()
    Generation(tmp_path).begin(first_step=3).log(4).end()
    assert steps(server) == [1, 2, 3, 4]
    assert only(server).exit_code == 0


@pytest.mark.slow
def test_resuming_from_an_earlier_step_starts_another_run_with_the_earlier_lines(server, tmp_path):
    Generation(tmp_path).begin().log(1, 2, 3).end()
    first = only(server)
    Generation(tmp_path, went_back=True).begin(first_step=1).log(2, 3, loss=9.0).end()
    second = next(run for run in server.runs.values() if run is not first)
    assert [row["train/loss"] for row in second.rows] == [1.0, 9.0, 9.0]
    assert len(first.rows) == 3


@pytest.mark.slow
def test_the_command_track_sends_missing_lines(server, tmp_path):
    Generation(tmp_path).begin().log(1, 2).end()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"kind": "train", "step": 3, "loss": 0.5}) + "\n")
    (tmp_path / "settings.yaml").write_text("mode: lite\n")
    (tmp_path / "origins.json").write_text("{}")
    command = [sys.executable, *PROGRAM.split()[1:], "track", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert steps(server) == [1, 2, 3]
