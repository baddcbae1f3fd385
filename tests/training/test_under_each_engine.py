"""Changes of weights and optimizer by the loop work under any sharding."""

from __future__ import annotations

import pytest
import torch

from engines.catalog import ENGINES, missing
from tests.training.ranks import tiny_run

# DeepSpeed knows no float64.
SINGLE = {"dtype": torch.float32}
AVERAGED = {
    "train": {"epochs": 2, "ema": 0.8},
    "eval": {"every": 2},
    "log": {"every": 1},
    "optim": {"lr": 0.05},
}
SKIPPING = {
    "train": {"epochs": 1, "on_nonfinite": "skip 1"},
    "optim": {"name": "sgd", "lr": 0.05, "clip_norm": None},
    "log": {"every": 1},
}


@pytest.fixture(params=[name for name in ENGINES if name != "local"])
def engine(request):
    if absent := missing(ENGINES[request.param]):
        pytest.skip(f"{absent[0]} is not installed")
    return request.param


@pytest.fixture(scope="module")
def local(two_ranks):
    return {
        "averaged": two_ranks.run(tiny_run, SINGLE, {}, AVERAGED)[0],
        "skipping": two_ranks.run(tiny_run, SINGLE | {"nan_gradient_at": [5]}, {}, SKIPPING)[0],
    }


def losses(found):
    return [line.loss for line in found["lines"]]


def errors(found):
    return [metrics["error"] for _, metrics in found["evaluations"]]


# Rounding of float32 over six steps.
def close(expected):
    return pytest.approx(expected, rel=1e-5)


def test_evaluation_sees_the_average_and_training_does_not(two_ranks, local, engine):
    for found in two_ranks.run(tiny_run, SINGLE, {}, AVERAGED | {"engine": engine}):
        assert errors(found) == close(errors(local["averaged"]))
        assert losses(found) == close(losses(local["averaged"]))


def test_a_gradient_that_is_not_finite_never_reaches_the_weights(two_ranks, local, engine):
    task = SINGLE | {"nan_gradient_at": [5]}
    for found in two_ranks.run(tiny_run, task, {}, SKIPPING | {"engine": engine}):
        assert found["outcome"].status == "completed"
        assert found["kinds"].count("skipped") == 1
        assert losses(found) == close(losses(local["skipping"]))
        assert errors(found) == close(errors(local["skipping"]))
