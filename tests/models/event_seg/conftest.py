import numpy as np
import pytest
import torch

from tests.models.tasks import maker


@pytest.fixture
def make_task():
    """A task that is not set up yet."""
    return maker("event_seg", 0.2)


@pytest.fixture
def train(draws):
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
