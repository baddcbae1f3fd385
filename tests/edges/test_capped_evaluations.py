"""`eval.samples`: the same samples in every evaluation, spread over the split, and said so."""

from types import SimpleNamespace

import pytest
import torch

from tests.training.tiny import TinyTask, make_settings, one_rank, run_tiny
from training.data.loader import EvaluationBatches
from training.data.samples import Samples


@pytest.mark.parametrize(("size", "most"), [(1, 10), (3, 10), (5, 4)])
def test_uneven_ranks_count_each_chosen_sample_once(size, most):
    task = TinyTask(val=40)
    samples, loader = Samples(task, task.data("val"), 0), make_settings().loader
    worlds = (SimpleNamespace(rank=rank, size=size, device=torch.device("cpu")) for rank in range(size))
    shares = [list(EvaluationBatches(samples, 3, world, loader, limit=most)) for world in worlds]
    batches = [micro.batch["index"].tolist() for share in shares for micro, counts in share if counts]
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
