from __future__ import annotations

import pytest
import torch

from models.custom import Means


def measure(model, batch):
    right = (model(batch["x"]) > 0) == batch["y"]
    return {"accuracy": (right.sum(), len(right)), "loss": (batch["x"].sum(), batch["x"].numel())}


BATCH = {"x": torch.tensor([1.0, -2.0, 3.0, -4.0]), "y": torch.tensor([True, True, True, False])}


def test_counts_of_uneven_batches_add_up_to_those_of_one():
    means = Means(["loss", "accuracy"], measure)
    model = torch.nn.Identity()
    parts = [
        means.update(model, {name: value[cut] for name, value in BATCH.items()})
        for cut in (slice(0, 1), slice(1, 4))
    ]
    assert torch.equal(sum(parts), means.update(model, BATCH))
    assert means.result(sum(parts)) == {"loss": -0.5, "accuracy": 0.75}


def test_counts_are_float64_and_hold_no_graph():
    counts = Means(["loss"], measure).update(torch.nn.Linear(4, 4), BATCH | {"y": torch.ones(4)})
    assert counts.dtype == torch.float64 and not counts.requires_grad


def test_a_metric_that_was_not_measured_is_an_error():
    with pytest.raises(KeyError, match="recall"):
        Means(["recall"], measure).update(torch.nn.Identity(), BATCH)


def test_a_mean_over_nothing_is_undefined():
    assert Means(["loss"], measure).result(torch.zeros(2)) == {"loss": None}
