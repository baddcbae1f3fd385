"""Ranks with other shares of the batch: the losses of one process, under every engine."""

import pytest
import torch

from gearshift.engines.catalog import ENGINES, missing
from gearshift.training.shares import apportion
from tests.training.tiny import RecordingCallback, TinyTask, TwoTermsTask, one_rank, run_tiny

CHANGES = {
    "train": {"epochs": 2},
    "optim": {"lr": 0.05},
    "eval": {"every": 3},
    "save": {"every": 1},
    "log": {"every": 1},
}
UNEQUAL = [(0, (5, 3))]
"""In micro-batches of 3 and 2 samples, and of 2 and 1."""


def run_with(world, engine="local", shares=(), two_terms=False, **changes):
    """The losses, norms, evaluations, tokens and weights of a rank."""
    task = (TwoTermsTask if two_terms else TinyTask)(dtype=torch.float32)
    run = run_tiny(
        world, task, RecordingCallback(), engine=engine, shares=shares, **CHANGES, **changes
    )
    lines = run.recorder.lines
    return {
        "losses": [line.loss for line in lines],
        "norms": [line.grad_norm for line in lines],
        "units": [line.units for line in lines],
        "evaluations": [found.metrics["error"] for found in run.recorder.evaluations],
    }


def slow(*engines):
    return [pytest.param(engine, marks=pytest.mark.slow) for engine in engines]


@pytest.mark.parametrize("two_terms", [False, True])
@pytest.mark.parametrize("engine", ["ddp", *slow("oss", "fsdp", "zero1", "zero2", "zero3")])
def test_unequal_ranks_have_the_losses_of_one_process(two_ranks, engine, two_terms):
    if absent := missing(ENGINES[engine]):
        pytest.skip(f"{absent[0]} is not installed")
    whole = run_with(one_rank(), "local", (), two_terms)
    for of_rank in two_ranks.run(run_with, engine, UNEQUAL, two_terms):
        for name, numbers in whole.items():
            assert of_rank[name] == pytest.approx(numbers, rel=1e-6, abs=1e-6), name


def test_samples_are_apportioned_so_that_the_slowest_rank_is_ready_early():
    assert apportion(8, [3, 1], 1) == [6, 2]
    assert apportion(8, [5, 3, 2], 1) == [5, 2, 1]
    assert apportion(8, [100, 1, 1], 2) == [4, 2, 2]
    assert apportion(12, [10, 1, 1], 1, [6, 12, 12]) == [6, 3, 3]
