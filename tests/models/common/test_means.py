from __future__ import annotations

import torch

from models.custom import CustomMetric


def measure(model, batch):
    right = (model(batch["x"]) > 0) == batch["y"][:, None]
    return {"accuracy": (right.sum(), len(right)), "loss": (batch["x"].sum(), batch["x"].numel())}


BATCH = {"x": torch.tensor([1.0, -2.0, 3.0, -4.0]), "y": torch.tensor([True, True, True, False])}


def test_counts_of_uneven_batches_add_up_to_those_of_one():
    means = CustomMetric(measure)
    model = torch.nn.Linear(1, 1)
    batch = BATCH | {"x": BATCH["x"][:, None]}
    parts = [
        means.update(model, {name: value[cut] for name, value in batch.items()})
        for cut in (slice(0, 1), slice(1, 4))
    ]
    assert torch.equal(sum(parts), means.update(model, batch))
    assert means.result(sum(parts))["loss"] == -0.5
    assert parts[0].dtype == torch.float64 and not parts[0].requires_grad
    assert means.result(torch.zeros(4)) == {"accuracy": None, "loss": None}
