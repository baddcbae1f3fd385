from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.base import Context
from models.event_seg.config import Data, Model
from models.event_seg.task import EventSegTask


@pytest.fixture
def make_task() -> Callable[..., EventSegTask]:
    """A task that is not set up yet, from settings by their name; `size` is tiny."""

    def make(
        folder: Path | None = None, share: float = 0.2, seed: int = 0, **settings: Any
    ) -> EventSegTask:
        in_model = {k: v for k, v in settings.items() if k in Model.model_fields}
        in_data = {
            k: str(v) if k == "path" else v for k, v in settings.items() if k not in in_model
        }
        context = Context(seed, share, folder, torch.device("cpu"))
        return EventSegTask(Model(**{"size": "tiny", **in_model}), Data(**in_data), context)

    return make


@pytest.fixture
def draws() -> Callable[[int], Any]:
    """Draws for `sample`, seeded by a number instead of epoch and index."""

    class Draws:
        def __init__(self, number: int) -> None:
            self.number = number

        def rng(self) -> np.random.Generator:
            return np.random.default_rng(self.number)

    return Draws


@pytest.fixture
def train(draws) -> Callable[..., None]:
    """Take `steps` deterministic steps of AdamW."""

    def run(task, model, steps, lr=3e-3, batch=8):
        samples = task.data("train")
        optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, steps)
        rng = np.random.default_rng(0)
        for step in range(steps):
            picked = rng.integers(len(samples), size=batch).tolist()
            given = task.collate([samples.sample(i, draws(step * 1000 + i)) for i in picked])
            optimizer.zero_grad()
            (task.loss(model, given).sum / task.num_units(given)).backward()
            optimizer.step()
            schedule.step()

    return run


@pytest.fixture
def counts_of(draws) -> Callable[..., Any]:
    """The metric, and its counts over a whole split, evaluated in batches of `batch`."""

    def run(task, model, split, batch):
        samples, metric, total = task.data(split), task.metric(), 0
        model.eval()
        for at in range(0, len(samples), batch):
            rows = range(at, min(len(samples), at + batch))
            total = total + metric.update(
                model, task.collate([samples.sample(i, draws(i)) for i in rows])
            )
        model.train()
        return metric, total

    return run
