"""The predictions of every family on a few samples."""

from __future__ import annotations

import importlib
import io
from typing import Any

import pytest
import torch
from PIL import Image

from launcher.config.schema import task_class
from models.base import Context, HasPredictions, Predictions, Task
from models.common.predictions import FixedDraws, few_samples, spread_positions

CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any], int]] = {
    "event_seg": ("event_seg", {}, {}, 4),
    "event_seg encoder": ("event_seg", {"stage": "encoder"}, {}, 4),
    "language text": ("language", {}, {"path": "embedded:python", "seq_len": 64}, 0),
    "language answers": ("language", {}, {"path": "embedded:commands"}, 0),
    "abr": ("abr", {}, {"path": "embedded:few-patients"}, 4),
    "abr encoder": ("abr", {"stage": "encoder"}, {"path": "embedded:few-patients"}, 4),
    "doc_translation": ("doc_translation", {"dropout": 0.0}, {"max_new_tokens": 6}, 3),
    "doc_translation encoder": ("doc_translation", {"stage": "encoder"}, {}, 3),
    "eeg_text": ("eeg_text", {"stage": "text"}, {"path": "embedded:reading-small"}, 3),
    "eeg_text encoder": ("eeg_text", {"stage": "encoder"}, {"path": "embedded:reading-small"}, 3),
}
"""Family, settings of model and data, and how many pictures there are."""


@pytest.fixture(scope="module", params=CASES)
def case(request) -> tuple[Task, int]:
    torch.set_num_threads(1)
    family, model, data, pictures = CASES[request.param]
    config = importlib.import_module(f"models.{family}.config")
    if family == "doc_translation":
        data = {"path": "embedded:cards"} | data
    context = Context(0, 0.2, None, torch.device("cpu"))
    settings = config.Model(**{"size": "tiny"} | model), config.Data(**data)
    task = task_class(family)(*settings, context)
    task.setup()
    return task, pictures


def built(task: Task) -> torch.nn.Module:
    torch.manual_seed(0)
    return task.build()


def predicted(task: Any, model: torch.nn.Module) -> Predictions:
    model.eval()
    with torch.no_grad():
        found: Predictions = task.predictions(model)
    return found


def train_a_little(task: Task, model: torch.nn.Module) -> None:
    """A few far too large steps on one batch, which change the outputs of the model."""
    model.train()
    batch = task.collate(few_samples(task.data("train"), 4))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(8):
        total = task.loss(model, batch).sum
        sums = total.values() if isinstance(total, dict) else [total]
        optimizer.zero_grad()
        torch.stack([term.reshape(()) for term in sums]).sum().backward()
        optimizer.step()


def test_predictions_show_a_few_fixed_samples_with_the_current_outputs_of_the_model(case):
    task, pictures = case
    assert isinstance(task, HasPredictions)
    model = built(task)
    state = torch.get_rng_state()
    first, again = predicted(task, model), predicted(task, model)
    assert torch.equal(state, torch.get_rng_state())
    assert first == again
    assert 3 <= len(first.rows) <= 4 and {len(row) for row in first.rows} == {len(first.columns)}
    assert all(isinstance(cell, str | float | int) for row in first.rows for cell in row)
    assert len(first.pictures) == pictures
    for picture in first.pictures:
        image = Image.open(io.BytesIO(picture.png))
        assert image.width >= 64 and len(picture.png) < 200_000
    train_a_little(task, model)
    then = predicted(task, model)
    assert then.columns == first.columns and then.rows != first.rows
    assert [row[0] for row in then.rows] == [row[0] for row in first.rows]
    assert [picture.name for picture in then.pictures] == [p.name for p in first.pictures]
    changed = [old.png != new.png for old, new in zip(first.pictures, then.pictures, strict=True)]
    assert not changed or any(changed)


def test_positions_are_spread_over_a_split_of_any_size():
    assert spread_positions(1, 4) == [0]
    assert spread_positions(3, 4) == [0, 1, 2]
    assert spread_positions(101, 3) == [0, 50, 100]
    assert FixedDraws().rng().random() == FixedDraws().rng().random()
