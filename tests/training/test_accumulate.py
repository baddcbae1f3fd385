"""Gradient accumulation gives the loss and gradient of one big batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engines.base import Options
from engines.local import FlatAveraging
from engines.replicated import Replicated
from tests.training.ranks import tiny_run, two_terms_run
from tests.training.tiny import TinyTask, TwoTermsTask, make_settings, one_rank, run_tiny
from training.accumulate import accumulate
from training.data.order import DataOrder
from training.data.samples import Samples
from training.optim import optimizer

# Float64 throughout: what is left is rounding.
EXACT = {"rtol": 1e-12, "atol": 1e-12}
LR = 0.05
SGD = {
    "optim": {"name": "sgd", "lr": LR, "momentum": 0.0, "weight_decay": 0.0, "clip_norm": None},
    "schedule": {"name": "constant"},
    "log": {"every": 1},
}


def by_hand(task: TinyTask, steps: int, global_batch: int = 8):
    """Losses and weights of plain gradient descent, each step one big batch."""
    torch.manual_seed(0)
    model = task.build()
    split = task.data("train")
    samples, order = Samples(task, split, 0), DataOrder(len(split), global_batch, 0)
    losses = []
    for step in range(steps):
        epoch, indices = order.batch(step)
        batch, units = samples[epoch, indices.tolist()]
        loss = task.loss(model, batch).sum / units
        losses.append(loss.item())
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= LR * parameter.grad
    return losses, model.state_dict()


@pytest.mark.parametrize("micro_batch", [1, 2, 4, 8])
def test_micro_batches_give_loss_and_weights_of_one_big_batch(micro_batch):
    task = TinyTask()
    losses, weights = by_hand(task, 6)
    run = run_tiny(one_rank(), task, micro_batch=micro_batch, train={"epochs": 2}, **SGD)
    torch.testing.assert_close([line.loss for line in run.recorder.lines], losses, **EXACT)
    for name, weight in weights.items():
        torch.testing.assert_close(run.weights[name].view_as(weight), weight, **EXACT)


@pytest.mark.parametrize("engine", ["local", "ddp"])
@pytest.mark.parametrize("micro_batch", [1, 4])
def test_uneven_ranks_give_loss_and_weights_of_one_big_batch(two_ranks, engine, micro_batch):
    losses, weights = by_hand(TinyTask(), 6)
    changes = {"train": {"epochs": 2}, **SGD, "engine": engine, "micro_batch": micro_batch}
    for found in two_ranks.run(tiny_run, {}, {}, changes):
        assert [line.loss for line in found["lines"]] == pytest.approx(losses, rel=1e-12)
        for name, weight in weights.items():
            assert np.allclose(found["weights"][name], weight.flatten(), 1e-12, 1e-12)


def test_parts_are_means_over_all_ranks(two_ranks):
    changes = {"train": {"epochs": 1}, **SGD}
    alone = run_tiny(one_rank(), TinyTask(), **changes).recorder.lines
    for found in two_ranks.run(tiny_run, {}, {}, changes):
        for line, other in zip(alone, found["lines"], strict=True):
            assert other.parts == pytest.approx(line.parts, rel=1e-12)
            assert (other.units, other.samples) == (line.units, line.samples)


class Watched(FlatAveraging):
    """Averages like the engine local, and records which micro-batch was marked last."""

    def __init__(self, model, world, options):
        super().__init__(model, world, options)
        self.noted = []

    def accumulate(self, last):
        self.noted.append(last)
        return super().accumulate(last)


def test_only_the_last_micro_batch_of_a_step_is_marked_last():
    task, world, watched = TinyTask(), one_rank(), []

    def watch(*arguments):
        watched.append(Watched(*arguments))
        return watched[-1]

    engine = Replicated(world, Options(), watch)
    model = task.build()
    spec = optimizer.spec(make_settings(), model, world)
    module = engine.prepare(model, spec, [])
    samples = Samples(task, task.data("train"), 0)
    accumulate(task, engine, module, [samples[0, [i]] for i in (1, 2, 3)], {"": 6})
    assert watched[0].noted == [False, False, True]


class NoUnits(TinyTask):
    """Every sample is padding."""

    def collate(self, samples):
        batch = super().collate(samples)
        return batch | {"mask": torch.zeros_like(batch["mask"])}


def test_a_global_batch_without_units_changes_nothing_and_is_counted():
    task = NoUnits()
    run = run_tiny(one_rank(), task, train={"epochs": 1}, **SGD)
    torch.manual_seed(0)
    first = task.build().state_dict()
    for name, weight in first.items():
        assert torch.equal(run.weights[name].view_as(weight), weight)
    assert [step.skipped for step in run.recorder.steps] == [True] * 3
    skipped = [facts for kind, facts in run.recorder.events if kind == "skipped"]
    assert skipped == [{"step": step, "units": 0} for step in (1, 2, 3)]
    assert run.outcome.status == "completed"


LR = 0.05
TWO_TERMS_SGD = {
    "optim": {"name": "sgd", "lr": LR, "momentum": 0.0, "weight_decay": 0.0, "clip_norm": None},
    "schedule": {"name": "constant"},
    "log": {"every": 1},
    "train": {"epochs": 2},
}


def two_terms_by_hand(steps: int, global_batch: int = 8):
    """Losses, their terms and the weights of plain gradient descent, each step one big batch."""
    task = TwoTermsTask()
    torch.manual_seed(0)
    model, split = task.build(), task.data("train")
    samples, order = Samples(task, split, 0), DataOrder(len(split), global_batch, 0)
    losses = []
    for step in range(steps):
        epoch, indices = order.batch(step)
        batch, units = samples[epoch, indices.tolist()]
        sums = task.loss(model, batch).sum
        terms = {term: sums[term] / max(units[term], 1) for term in units}
        model.zero_grad()
        sum(terms.values()).backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= LR * parameter.grad
        losses.append({term: mean.item() for term, mean in terms.items()})
    return losses, model.state_dict()


@pytest.mark.parametrize("micro_batch", [1, 4, 8])
def test_each_term_is_the_mean_over_its_own_units_of_the_global_batch(micro_batch):
    terms, weights = two_terms_by_hand(6)
    run = run_tiny(one_rank(), TwoTermsTask(), micro_batch=micro_batch, **TWO_TERMS_SGD)
    for line, expected in zip(run.recorder.lines, terms, strict=True):
        assert line.loss == pytest.approx(sum(expected.values()), rel=1e-12)
        assert line.parts == pytest.approx(expected, rel=1e-12)
    for name, weight in weights.items():
        torch.testing.assert_close(run.weights[name].view_as(weight), weight, rtol=1e-12, atol=0)


@pytest.mark.parametrize("engine", ["local", "ddp"])
def test_terms_are_means_over_the_units_of_all_ranks(two_ranks, engine):
    terms, weights = two_terms_by_hand(6)
    for found in two_ranks.run(
        two_terms_run, {**TWO_TERMS_SGD, "engine": engine, "micro_batch": 1}
    ):
        assert found["losses"] == pytest.approx([sum(t.values()) for t in terms], rel=1e-12)
        for name, weight in weights.items():
            assert np.allclose(found["weights"][name], weight.flatten(), 1e-12, 1e-12)


def test_a_task_gets_the_progress_before_each_step():
    task = TwoTermsTask()
    run_tiny(one_rank(), task, **TWO_TERMS_SGD)
    assert task.paces == pytest.approx(np.array([(step / 3, 2.0) for step in range(6)]))
