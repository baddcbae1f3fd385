"""Offline runs: W&B's own files are read back."""

import json
import math

import pytest

from models.base import Picture, Predictions
from tests.training.trackers.conftest import PNG
from tests.training.trackers.tracked_run import Generation
from training.trackers import wandb
from training.trackers.metrics_reader import STEP


def files(folder):
    run_id = json.loads((folder / "wandb" / "run.json").read_text())["id"]
    return wandb.files(folder, run_id)


def rows(folder):
    return [row for path in files(folder) for row in wandb.rows(path)]


def test_generations_leave_each_step_once_with_its_predictions_and_one_command(tmp_path):
    Generation(tmp_path).begin().log(1, loss=0.1 + 0.2).log(2, loss=math.nan).log(3).die()
    generation = Generation(tmp_path, tracking={"checkpoints": "best"}).begin(first_step=1)
    generation.log(2, loss=math.nan).log(3).log(4).evaluate(4)
    shown = Predictions(("given", "gives"), [["a", 1.0]], [Picture("page", "one page", PNG)])
    folder = tmp_path / "checkpoints" / "step-00000004"
    folder.mkdir(parents=True)
    for name in ("model.safetensors", "manifest.json", "rank-00000.safetensors"):
        (folder / name).write_text(name)
    (tmp_path / "best").symlink_to(folder)
    for callback in generation.callbacks:
        callback.predicted(shown, 4)
        callback.saved(folder, 4, 0.5)
    generation.log(5).end()

    assert generation.warnings == []
    ((kind, text),) = generation.printed
    assert kind == "notice"
    assert text.startswith("W&B        recorded offline (not logged in); to send it:  wandb sync ")
    assert all(str(path.parent) in text for path in files(tmp_path))
    found = rows(tmp_path)
    assert [row[STEP] for row in found] == [1, 2, 3, 4, 5]
    first, second, _, evaluated, last = found
    assert first["train/loss"] == 0.1 + 0.2 and math.isnan(second["train/loss"])
    assert "samples/page" in json.dumps(evaluated) and "samples/page" not in json.dumps(last)
    (picture,) = tmp_path.glob("wandb/*run-*/files/media/images/samples/page*.png")
    assert picture.read_bytes() == PNG
    (table,) = tmp_path.glob("wandb/*run-*/files/media/table/samples/*.json")
    assert json.loads(table.read_text())["data"] == [["a", 1.0]]
    staged = next(tmp_path.glob("wandb/step-00000004-*"))
    assert sorted(path.name for path in staged.iterdir()) == ["manifest.json", "model.safetensors"]


@pytest.mark.slow
def test_rows_lost_by_a_kill_are_written_again(tmp_path):
    Generation(tmp_path).begin().log(1, 2, 3).stop()
    (file,) = files(tmp_path)
    file.write_bytes(file.read_bytes()[:-1500])
    lost = 3 - len(rows(tmp_path))
    assert lost > 0
    Generation(tmp_path).begin(first_step=3).log(4).end()
    assert [row[STEP] for row in rows(tmp_path)] == [1, 2, 3, 4]
