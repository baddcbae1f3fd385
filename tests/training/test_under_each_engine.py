"""Changes of weights and optimizer by the loop work under any sharding."""

import pytest
import torch

from engines.catalog import ENGINES, missing
from tests.training.ranks import tiny_run

# DeepSpeed knows no float64.
TASK = {"dtype": torch.float32, "nan_gradient_at": [5]}
CHANGES = {
    "train": {"epochs": 2, "ema": 0.8, "on_nonfinite": "skip 1"},
    "eval": {"every": 2},
    "log": {"every": 1},
    "optim": {"name": "sgd", "lr": 0.05, "clip_norm": None},
}


@pytest.fixture(scope="module")
def local(two_ranks):
    return two_ranks.run(tiny_run, TASK, {}, CHANGES)[0]


def losses(found):
    return [line.loss for line in found["lines"]]


def errors(found):
    return [metrics["error"] for _, metrics in found["evaluations"]]


@pytest.mark.parametrize("engine", ["ddp", "oss", "fsdp", "zero1", "zero3", "zero2-offload"])
def test_evaluation_sees_the_average_and_a_gradient_that_is_not_finite_reaches_no_weight(
    two_ranks, local, engine
):
    if absent := missing(ENGINES[engine]):
        pytest.skip(f"{absent[0]} is not installed")
    for found in two_ranks.run(tiny_run, TASK, {}, CHANGES | {"engine": engine}):
        assert found["outcome"].status == "completed"
        assert found["kinds"].count("skipped") == local["kinds"].count("skipped") > 0
        # Rounding of float32 over six steps.
        assert losses(found) == pytest.approx(losses(local), rel=1e-5)
        assert errors(found) == pytest.approx(errors(local), rel=1e-5)
