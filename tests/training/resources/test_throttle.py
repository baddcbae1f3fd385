"""Throttled runs have the losses of undisturbed ones; at last they save and end."""

import multiprocessing

import pytest
import torch

from gearshift.engines.catalog import ENGINES, missing
from gearshift.training.callbacks.base import Action
from tests.training.resources.simulated_load import (
    LONG,
    SimulatedLoad,
    loaded_run,
    summary,
    throttled_run,
)
from tests.training.tiny import one_rank, run_tiny

FULL = [40.0, 99.0]
BATCH = {"global_batch": 8, "micro_batch": 4}
HELPED = BATCH | {"loader": {"workers": 2}}
SMALLER = Action.FREE_MEMORY | Action.SMALLER_BATCH
# Sums of float64 in another order.
ROUNDING = 1e-12


@pytest.mark.slow
def test_lasting_pressure_takes_every_throttling_step_ends_with_75_and_is_resumed():
    before = set(multiprocessing.active_children())
    callback = SimulatedLoad(FULL)
    stopped = run_tiny(one_rank(), callback=callback, **LONG | HELPED)
    run = summary(stopped)
    steps = [kind for kind in run["kinds"] if kind in ("fewer_workers", "smaller_micro_batch")]
    assert steps == ["fewer_workers", "fewer_workers", "smaller_micro_batch"]
    # Each request is judged after one more step; all of one reading.
    assert (run["steps"], run["exit_code"], run["saved"]) == (6, 75, [6])
    assert run["kinds"].count("limit_warning") == 1
    assert set(multiprocessing.active_children()) <= before
    rest = run_tiny(one_rank(), before=stopped.shelf.before(6), **LONG | BATCH)
    undisturbed = summary(run_tiny(one_rank(), **LONG | BATCH))
    losses = [line.loss for line in (*callback.lines, *rest.recorder.lines)]
    assert losses == pytest.approx(undisturbed["losses"], rel=ROUNDING)


def test_pressure_on_one_rank_throttles_and_ends_both(two_ranks):
    both = two_ranks.run(loaded_run, {1: FULL}, {"global_batch": 8, "micro_batch": 2})
    for run in both:
        assert (run["steps"], run["exit_code"], run["saved"]) == (7, 75, [7])
        assert "smaller_micro_batch" in run["kinds"]
    assert "pressure" not in both[0]["kinds"] and "pressure" in both[1]["kinds"]
    assert both[0]["weights"] == both[1]["weights"]


SINGLE = {"dtype": torch.float32}


@pytest.mark.parametrize("engine", ["local", "fsdp", "zero2-offload"])
def test_every_engine_takes_smaller_micro_batches_between_two_steps(two_ranks, engine):
    if absent := missing(ENGINES[engine]):
        pytest.skip(f"{absent[0]} is not installed")
    changes = {"global_batch": 8, "micro_batch": 4, "engine": engine, "train": {"epochs": 2}}
    plain = two_ranks.run(throttled_run, SINGLE, {}, changes)
    for run in two_ranks.run(throttled_run, SINGLE, {2: SMALLER, 4: SMALLER}, changes):
        assert run["kinds"].count("smaller_micro_batch") == 2
        # Rounding of float32 over six steps.
        assert run["losses"] == pytest.approx(plain[0]["losses"], rel=1e-5)
