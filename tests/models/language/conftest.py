from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from models.base import Context
from models.language.config import Data, Model
from models.language.task import LanguageTask


@pytest.fixture
def context() -> Callable[..., Context]:
    def make(folder: Path | None = None, share: float = 0.1, seed: int = 0) -> Context:
        return Context(seed, share, folder, torch.device("cpu"))

    return make


@pytest.fixture
def make_task(context) -> Callable[..., LanguageTask]:
    """A task that is not set up yet, from settings by their name; `size` is tiny."""

    def make(folder: Path | None = None, share: float = 0.1, **settings: Any) -> LanguageTask:
        in_model = {k: v for k, v in settings.items() if k in Model.model_fields}
        in_data = {
            k: str(v) if k == "path" else v for k, v in settings.items() if k not in in_model
        }
        return LanguageTask(
            Model(**{"size": "tiny", **in_model}), Data(**in_data), context(folder, share)
        )

    return make


@pytest.fixture
def train() -> Callable[..., None]:
    """Take `steps` deterministic steps of AdamW with a decaying learning rate."""

    def run(task, model, steps, lr=3e-3, batch=8):
        samples = task.data("train")
        optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
        generator = torch.Generator().manual_seed(0)
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = lr * min(1, (step + 1) / 5) * (1 - step / steps)
            picked = torch.randint(len(samples), (batch,), generator=generator).tolist()
            given = task.collate([samples.sample(i, None) for i in picked])
            optimizer.zero_grad()
            (task.loss(model, given).sum / task.num_units(given)).backward()
            optimizer.step()

    return run


@pytest.fixture
def counts_of() -> Callable[..., Any]:
    """The metric, and its counts over a whole split, evaluated in batches of `batch`."""

    def run(task, model, split, batch):
        samples, metric, total = task.data(split), task.metric(), 0
        for at in range(0, len(samples), batch):
            rows = [samples.sample(i, None) for i in range(at, min(len(samples), at + batch))]
            total = total + metric.update(model, task.collate(rows))
        return metric, total

    return run
