from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.training.ranks import two_terms_run
from tests.training.tiny import TwoTermsTask, one_rank, run_tiny
from training.data.order import DataOrder
from training.data.samples import Samples
from training.units import added, by_term, counted

LR = 0.05
SGD = {
    "optim": {"name": "sgd", "lr": LR, "momentum": 0.0, "weight_decay": 0.0, "clip_norm": None},
    "schedule": {"name": "constant"},
    "log": {"every": 1},
    "train": {"epochs": 2},
}


def by_hand(steps: int, global_batch: int = 8):
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
    terms, weights = by_hand(6)
    run = run_tiny(one_rank(), TwoTermsTask(), micro_batch=micro_batch, **SGD)
    for line, expected in zip(run.listener.lines, terms, strict=True):
        assert line.loss == pytest.approx(sum(expected.values()), rel=1e-12)
        assert line.parts == pytest.approx(expected, rel=1e-12)
    for name, weight in weights.items():
        torch.testing.assert_close(run.weights[name].view_as(weight), weight, rtol=1e-12, atol=0)


@pytest.mark.parametrize("engine", ["local", "ddp"])
def test_terms_are_means_over_the_units_of_all_ranks(two_ranks, engine):
    terms, weights = by_hand(6)
    for found in two_ranks.run(two_terms_run, {**SGD, "engine": engine, "micro_batch": 1}):
        assert found["losses"] == pytest.approx([sum(t.values()) for t in terms], rel=1e-12)
        for name, weight in weights.items():
            assert np.allclose(found["weights"][name], weight.flatten(), 1e-12, 1e-12)


def test_the_first_term_counts_the_units_of_a_run():
    run = run_tiny(one_rank(), TwoTermsTask(), **SGD)
    task = TwoTermsTask()
    units = sum(i % 4 for i in range(task.train))
    assert run.listener.lines[-1].units == 2 * units


def test_a_task_that_wants_to_know_is_told_before_each_step_how_far_the_run_is():
    task = TwoTermsTask()
    run_tiny(one_rank(), task, **SGD)
    assert task.paces == pytest.approx(np.array([(step / 3, 2.0) for step in range(6)]))


def test_units_of_batches_add_up_by_term():
    assert added([{"a": 2, "b": 0}, {"a": 3, "b": 1}]) == {"a": 5, "b": 1}
    assert added([2, 3]) == by_term(5)
    assert counted({"a": 5, "b": 1}) == counted(added([2, 3])) == 5
