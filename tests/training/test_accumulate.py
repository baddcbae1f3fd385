"""Gradient accumulation gives the loss and gradient of one big batch."""

import numpy as np
import pytest
import torch

from gearshift.engines.base import Options
from gearshift.engines.local import FlatAveraging
from gearshift.engines.replicated import Replicated
from gearshift.training.accumulate import accumulate
from gearshift.training.data.samples import DataOrder, Samples
from gearshift.training.optim import optimizer
from tests.training.ranks import tiny_run
from tests.training.tiny import TinySplit, TinyTask, TwoTermsTask, make_settings, one_rank, run_tiny

# Float64 throughout: what is left is rounding.
EXACT = {"rtol": 1e-12, "atol": 1e-12}
LR = 0.05
SGD = {
    "optim": {"name": "sgd", "lr": LR, "momentum": 0.0, "weight_decay": 0.0, "clip_norm": None},
    "schedule": {"name": "constant"},
    "log": {"every": 1},
}


def by_hand(task, steps, global_batch=8):
    """Each term of the losses, and the weights of plain gradient descent; a step is one batch."""
    torch.manual_seed(0)
    model = task.build()
    split = task.data("train")
    samples, order = Samples(task, split, 0), DataOrder(len(split), global_batch, 0)
    losses = []
    for step in range(steps):
        epoch, indices = order.batch(step)
        batch, units, *_ = samples[epoch, indices.tolist()]
        sums = task.loss(model, batch).sum
        if isinstance(sums, torch.Tensor):
            sums, units = {"": sums}, {"": units}
        terms = {term: sums[term] / max(units[term], 1) for term in units}
        model.zero_grad()
        sum(terms.values()).backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= LR * parameter.grad
        losses.append({term: mean.item() for term, mean in terms.items()})
    return losses, model.state_dict()


@pytest.mark.parametrize("micro_batch", [1, 4, 8])
@pytest.mark.parametrize("task", [TinyTask, TwoTermsTask])
def test_micro_batches_give_loss_and_weights_of_one_big_batch(task, micro_batch):
    """Each term of a loss is the mean over its own units of the global batch."""
    terms, weights = by_hand(task(), 6)
    run = run_tiny(one_rank(), task(), micro_batch=micro_batch, train={"epochs": 2}, **SGD)
    for line, expected in zip(run.recorder.lines, terms, strict=True):
        assert line.loss == pytest.approx(sum(expected.values()), rel=1e-12)
        assert task is TinyTask or line.parts == pytest.approx(expected, rel=1e-12)
    for name, weight in weights.items():
        torch.testing.assert_close(run.weights[name].view_as(weight), weight, **EXACT)


@pytest.mark.parametrize(
    ("engine", "micro_batch", "two_terms"),
    [("local", 1, False), ("ddp", 4, False), ("local", 1, True), ("ddp", 1, True)],
)
def test_uneven_ranks_give_loss_and_weights_of_one_big_batch(
    two_ranks, engine, micro_batch, two_terms
):
    terms, weights = by_hand(TwoTermsTask() if two_terms else TinyTask(), 6)
    changes = {"train": {"epochs": 2}, **SGD, "engine": engine, "micro_batch": micro_batch}
    for found in two_ranks.run(tiny_run, {}, {}, changes, two_terms):
        losses = [line.loss for line in found["lines"]]
        assert losses == pytest.approx([sum(of.values()) for of in terms], rel=1e-12)
        for name, weight in weights.items():
            assert np.allclose(found["weights"][name], weight.flatten(), 1e-12, 1e-12)


@pytest.mark.parametrize("micro_batch", [1, 4])
def test_what_is_computed_is_counted_beside_the_units_of_the_loss(two_ranks, micro_batch):
    samples = Samples(TwoTermsTask(), TinySplit(24), 0)
    batch, units, computed, _ = samples[0, list(range(len(samples)))]
    units = units["square"]
    assert batch["mask"].numel() == computed > units
    for found in two_ranks.run(
        tiny_run, {}, {}, {"train": {"epochs": 2}, "micro_batch": micro_batch}, True
    ):
        line = found["lines"][-1]
        assert (line.units, line.labelled) == (2 * computed, 2 * units)
        assert line.labelled_per_s < line.units_per_s


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
    for name, weight in task.build().state_dict().items():
        assert torch.equal(run.weights[name].view_as(weight), weight)
    assert [step.skipped for step in run.recorder.steps] == [True] * 3
    skipped = [facts for kind, facts in run.recorder.events if kind == "skipped"]
    assert skipped == [{"step": step, "units": 0} for step in (1, 2, 3)]
    assert run.outcome.status == "failed"  # it took no step
