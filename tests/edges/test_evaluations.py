"""Evaluations that are NaN or infinite end a run; `eval.samples` takes the same samples in each."""

import math
from types import SimpleNamespace

import pytest
import torch

from gearshift.training.data.loader import EvaluationBatches
from gearshift.training.data.samples import Samples
from gearshift.training.evaluation.early_stopping import EarlyStopping, parse_target
from gearshift.training.settings import Stop
from tests.training.tiny import TinyMetric, TinyTask, make_settings, one_rank, run_tiny

BAD = [math.nan, math.inf, -math.inf]


class Values(TinyTask):
    """Its evaluations give the `values` in turn, and the side metric is always `side`."""

    def __init__(self, *values, **more):
        super().__init__(**more)
        self._values = iter(values)

    side = math.nan

    def metric(self):
        metric, value = TinyMetric(), next(self._values)
        metric.result = lambda counts: {"error": value, "side": self.side}
        return metric


def evaluated(*values, policy="skip 9", **changes):
    train = {"epochs": 9, "max_steps": 2 * len(values), "on_nonfinite": policy}
    return run_tiny(one_rank(), Values(*values), train=train, eval={"every": 2}, **changes)


@pytest.mark.parametrize("bad", BAD)
def test_stop_ends_the_run_after_it_was_saved(bad):
    run = evaluated(2.0, bad, 1.0, policy="stop")
    assert (run.outcome.status, run.outcome.exit_code, run.outcome.steps) == ("failed", 1, 4)
    assert run.outcome.fault == "nonfinite_evaluation"
    assert run.outcome.reason == f"error {bad} in the evaluation of val at step 4"
    assert run.outcome.best["step"] == 2
    assert max(run.shelf.saved) == 4


def test_skip_ends_the_run_after_as_many_in_a_row():
    assert evaluated(2.0, math.nan, 1.0, math.nan, policy="skip 1").outcome.status == "completed"
    run = evaluated(2.0, math.nan, math.nan, 1.0, policy="skip 1")
    assert (run.outcome.status, run.outcome.steps) == ("failed", 6)
    assert run.outcome.fault == "nonfinite_evaluation"
    first = evaluated(math.nan, policy="skip 1", save={"every": 2})  # counted over a resume
    train = {"epochs": 9, "max_steps": 4, "on_nonfinite": "skip 1"}
    before = {"before": first.shelf.before(2), "shelf": first.shelf}
    rest = run_tiny(one_rank(), Values(math.nan), train=train, eval={"every": 2}, **before)
    assert rest.outcome.fault == "nonfinite_evaluation"


@pytest.mark.parametrize("bad", BAD)
def test_it_is_never_the_best_counts_as_not_improved_and_reaches_no_target(bad):
    for direction in ("min", "max"):
        early = EarlyStopping(Stop(patience=2), keep_best=2)
        assert not early.add(1, bad, direction) and early.best is None and not early.is_among_best
        assert early.add(2, 1.0, direction) and early.waited == 0
        assert not early.add(3, bad, direction) and not early.is_among_best
        assert not early.is_out_of_patience
        early.add(4, bad, direction)
        assert early.is_out_of_patience and early.best["step"] == 2
    for target in ("error <= 9", "error >= -9"):
        assert not parse_target(target).is_reached({"error": bad})


@pytest.mark.parametrize(("size", "most"), [(1, 10), (3, 10), (5, 4)])
def test_uneven_ranks_count_each_chosen_sample_once(size, most):
    task = TinyTask(val=40)
    samples, loader = Samples(task, task.data("val"), 0), make_settings().loader
    worlds = (
        SimpleNamespace(rank=rank, size=size, device=torch.device("cpu")) for rank in range(size)
    )
    shares = [list(EvaluationBatches(samples, 3, world, loader, limit=most)) for world in worlds]
    batches = [
        micro.batch["index"].tolist() for share in shares for micro, counts in share if counts
    ]
    assert sorted(index for batch in batches for index in batch) == [*samples.spread(most)]
    assert len({len(share) for share in shares}) == 1


def test_every_evaluation_counts_the_chosen_samples_and_the_test_split_stays_whole():
    sections = {"train": {"max_steps": 6, "epochs": 9}, "eval": {"every": 2, "samples": 10}}
    run = run_tiny(one_rank(), TinyTask(val=40), **sections)
    counts = [(e.samples, e.split_samples, e.metrics["samples"]) for e in run.recorder.evaluations]
    assert counts == [(10, 40, 10)] * 3
    assert (run.outcome.best["samples"], run.outcome.best["split_samples"]) == (10, 40)
    run = run_tiny(one_rank(), TinyTask(val=40), eval={"samples": 10, "test": True}, has_test=True)
    counts = {e.split: (e.samples, e.split_samples) for e in run.recorder.evaluations}
    assert counts == {"val": (10, 40), "test": (40, 40)}
