"""The sample table of every family, and any cell of a custom task, reaches W&B and the report."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from models.base import Predictions
from tests.runs.conftest import Program
from tests.training.tiny import TinyTask, one_rank, run_tiny
from tests.training.trackers.tracked_run import Generation
from training.inspection import MISSING

COLUMNS = {
    "text and numbers": (["a", 1.5, 3], ["a", "1.5", "3"]),
    "a number is unknown": ([None, 1.5, MISSING], [None, 1.5, None]),
    "text is unknown": ([None, "a", MISSING], [MISSING, "a", MISSING]),
    "all unknown": ([None, None, MISSING], [None, None, None]),
    "NumPy and torch": ([np.float32(1.5), torch.tensor(2.0), np.int64(3)], [1.5, 2.0, 3]),
    "truth values": ([True, np.bool_(False), "a"], ["True", "False", "a"]),
    "another type": ([Path("a"), [1, 2], torch.ones(2)], ["a", "[1, 2]", "tensor([1., 1.])"]),
    "not finite": ([math.nan, math.inf, 0.0], [math.nan, math.inf, 0.0]),
}
"""Cells of a column, and what trackers get."""


class Table(TinyTask):
    def predictions(self, model):
        return Predictions(("value",), self.rows)


def shown(cells):
    task = Table()
    task.rows = [[cell] for cell in cells]
    run = run_tiny(one_rank(), task, track=["wandb"])
    (found,) = run.recorder.shown.values()
    return found


def test_a_row_of_another_length_is_a_warning_and_the_run_continues():
    task = Table()
    task.rows = [["a", "b"]]
    run = run_tiny(one_rank(), task)
    warnings = [facts["text"] for kind, facts in run.recorder.events if kind == "warning"]
    text = "predictions are disabled: ValueError: a row has 2 cells for 1 columns"
    assert (run.outcome.status, warnings) == ("completed", [text])


def tables(folder):
    found = folder.glob("wandb/*run-*/files/media/table/samples/*.json")
    return [json.loads(path.read_text()) for path in found]


def test_wandb_takes_every_column_with_cells_of_one_type(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    generation = Generation(tmp_path).begin().log(2)
    rows = zip(*(cells for cells, _ in COLUMNS.values()), strict=True)
    plain = [[cell for (cell,) in shown(row).rows] for row in rows]
    generation.callbacks.predicted(Predictions(tuple(COLUMNS), plain), 2)
    generation.end()
    assert generation.warnings == []
    (table,) = tables(tmp_path)
    assert table["columns"] == list(COLUMNS)
    expected = zip(*(cells for _, cells in COLUMNS.values()), strict=True)
    assert [[str(cell) for cell in row] for row in table["data"]] == [
        [str(cell) for cell in row] for row in expected
    ]


@pytest.mark.slow
def test_wandb_has_the_table_of_a_family(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    options = ("--max-steps", "1", "--set", "track=[wandb]", "--out", "run")
    run = Program(tmp_path)("--model", "event_seg:tiny", *options)
    assert run.returncode == 0
    assert "could not be sent" not in run.stdout and "disabled" not in run.stdout
    (table, *_) = tables(tmp_path / "run")
    assert table["data"]
