"""The sample table of every family, and any cell of a custom task, reaches W&B and the report."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from models.base import Predictions
from tests.training.tiny import TinyTask, one_rank, run_tiny
from training.trackers.predictions import MISSING, columns_of_one_type, predictions_table

COLUMNS = {
    "text and numbers": (["a", 1.5, 3], ["a", "1.5", "3"]),
    "a number is unknown": ([None, 1.5, MISSING], [None, 1.5, None]),
    "text is unknown": ([None, "a", MISSING], [MISSING, "a", MISSING]),
    "all unknown": ([None, None, MISSING], [None, None, None]),
    "NumPy and torch": ([np.float32(1.5), torch.tensor(2.0), np.int64(3)], [1.5, 2.0, 3]),
    "truth values": ([True, np.bool_(False), "a"], ["True", "False", "a"]),
    "another type": ([Path("a"), [1, 2], torch.ones(2)], ["a", "[1, 2]", "tensor([1., 1.])"]),
    "not finite": (
        [math.nan, math.inf, 0.0],
        [pytest.approx(math.nan, nan_ok=True), math.inf, 0.0],
    ),
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


def test_the_types_of_a_column_are_one():
    for name, (cells, expected) in COLUMNS.items():
        found = shown(cells)
        assert [cell for (cell,) in columns_of_one_type(found)] == expected, name
        assert json.dumps(found.rows) and predictions_table(found)


def test_a_row_of_another_length_is_a_warning_and_the_run_continues():
    task = Table()
    task.rows = [["a", "b"]]
    run = run_tiny(one_rank(), task)
    warnings = [facts["text"] for kind, facts in run.recorder.events if kind == "warning"]
    text = "predictions are disabled: ValueError: a row has 2 cells for 1 columns"
    assert (run.outcome.status, warnings) == ("completed", [text])
