"""W&B with and without its server: one W&B run for all generations, each step once."""

import json
import math
import subprocess
import sys

import psutil
import pytest

from gearshift.launcher.base.diagnostics import PROGRAM
from gearshift.models.base import Picture, Predictions
from gearshift.training.trackers.wandb import STEP
from tests.training.trackers.conftest import KEY, PNG
from tests.training.trackers.tracked_run import Generation
from tests.training.trackers.wandb_file import files, rows


def only(server):
    (run,) = server.runs.values()
    return run


def steps(server):
    return [row[STEP] for row in only(server).rows]


def recorded(folder):
    """The rows of the newest file: it has the whole run."""
    return list(rows(files(folder)[-1]))


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

    found = [path for path in (tmp_path / "mine").rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in found)
    for content in [bytes(server.bytes), *(path.read_bytes() for path in found)]:
        for secret in (KEY, "hunter2hunter2", "opensesame"):
            assert secret.encode() not in content
    assert b"git" not in bytes(server.bytes) and b"requirements" not in bytes(server.bytes)


def test_an_offline_run_has_each_step_once_with_its_samples_in_its_newest_file(tmp_path):
    Generation(tmp_path).begin().log(1, loss=0.1 + 0.2).log(2, loss=math.nan).log(3).die()
    generation = Generation(tmp_path, tracking={"checkpoints": "best"}).begin(first_step=1)
    generation.log(2, loss=math.nan).log(3).log(4).evaluate(4)
    shown = Predictions(("given", "gives"), [["a", 1.0]], [Picture("page", "one page", PNG)])
    generation.callbacks.predicted(shown, 4)
    generation.save(4).log(5).end()

    ((kind, text),) = generation.printed
    assert kind == "notice" and f"send {tmp_path}" in text
    first, second, _, evaluated, last = recorded(tmp_path)
    assert [row[STEP] for row in recorded(tmp_path)] == [1, 2, 3, 4, 5]
    assert first["train/loss"] == 0.1 + 0.2 and math.isnan(second["train/loss"])
    assert "samples/page" in json.dumps(evaluated) and "samples/page" not in json.dumps(last)
    (picture,) = tmp_path.glob("wandb/*run-*/files/media/images/samples/page*.png")
    assert picture.read_bytes() == PNG
    (table,) = tmp_path.glob("wandb/*run-*/files/media/table/samples/*.json")
    assert json.loads(table.read_text())["data"] == [["a", 1.0]]
    staged = next(tmp_path.glob("wandb/step-00000004-*"))
    assert sorted(path.name for path in staged.iterdir()) == ["manifest.json", "model.safetensors"]


@pytest.mark.slow
def test_generations_and_the_command_track_make_one_run_until_it_goes_back(server, tmp_path):
    Generation(tmp_path).begin().log(1, 2, 3).stop()
    assert only(server).exit_code == 75
    Generation(tmp_path).begin(first_step=2).log(3, 4).evaluate(4).die()  # by kill -9, after step 4
    assert only(server).exit_code == 1
    Generation(tmp_path).begin(first_step=3).log(4, 5).evaluate(5).end()
    assert steps(server) == [1, 2, 3, 4, 5] and only(server).exit_code == 0
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"kind": "train", "step": 6, "loss": 0.5}) + "\n")
    (tmp_path / "settings.yaml").write_text("mode: lite\n")
    (tmp_path / "origins.json").write_text("{}")
    command = [sys.executable, *PROGRAM.split()[1:], "track", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert steps(server) == [1, 2, 3, 4, 5, 6]
    first = only(server)
    Generation(tmp_path, went_back=True).begin(first_step=1).log(2, 3, loss=9.0).end()
    second = next(run for run in server.runs.values() if run is not first)
    assert [row["train/loss"] for row in second.rows] == [1.0, 9.0, 9.0]
    assert len(first.rows) == 6


@pytest.mark.slow
def test_a_server_that_refuses_is_one_warning_and_the_run_is_recorded_offline(server, tmp_path):
    server.fails = 401
    generation = Generation(tmp_path).begin().log(1, 2, 3).end()
    (warning,) = generation.warnings
    assert f"send {tmp_path}" in warning
    assert [row[STEP] for row in recorded(tmp_path)] == [1, 2, 3]


@pytest.mark.slow
def test_the_run_waits_only_so_long_for_a_server_that_is_gone_or_a_suspended_process(
    server, tmp_path
):
    generation = Generation(tmp_path / "gone", tracking={"wait_s": 2}).begin().log(1).until_open()
    server.close()
    generation.log(2, 3).end()
    (warning,) = generation.warnings
    assert f"send {tmp_path}" in warning
    generation = Generation(tmp_path / "suspended", tracking={"wait_s": 1}).begin()
    psutil.Process(generation.process.pid).suspend()
    generation.log(*range(1, 3000)).end()
    (warning,) = generation.warnings
    assert f"send {tmp_path}" in warning
