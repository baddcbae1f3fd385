from __future__ import annotations

import pytest
import torch

from tests.training.ranks import tiny_run
from tests.training.tiny import TinyTask, make_settings, one_rank, run_tiny
from training.data.loader import EvaluationBatches
from training.data.samples import Samples
from training.evaluation.evaluate import evaluate, metric_names


def batches(task, micro_batch):
    samples = Samples(task, task.data("val"), 0)
    return EvaluationBatches(samples, micro_batch, one_rank(), make_settings().loader)


@pytest.mark.parametrize("micro_batch", [1, 2, 7, 10])
def test_every_sample_counts_once_for_any_micro_batch(micro_batch):
    task = TinyTask(val=7)
    torch.manual_seed(0)
    model = task.build()
    found = evaluate(task, model, batches(task, micro_batch), one_rank())
    whole = evaluate(task, model, batches(task, 7), one_rank())
    assert found["samples"] == 7
    assert found == pytest.approx(whole, rel=1e-14)


@pytest.mark.parametrize("length", [1, 5, 6, 7, 8])
def test_two_ranks_find_what_one_finds(two_ranks, length):
    changes = {"train": {"max_steps": 1}}
    alone = run_tiny(one_rank(), TinyTask(val=length), **changes).listener.evaluations
    for found in two_ranks.run(tiny_run, {"val": length}, {}, changes):
        ((step, metrics),) = found["evaluations"]
        assert step == alone[0].step == 1
        assert metrics["samples"] == length
        assert metrics == pytest.approx(alone[0].metrics, rel=1e-12)


def test_the_model_is_in_evaluation_mode_only_meanwhile():
    task = TinyTask(dropout=0.9)
    model = task.build()
    seen = []
    model.register_forward_hook(lambda module, args, out: seen.append(module.training))
    first = evaluate(task, model, batches(task, 2), one_rank())
    assert not any(seen)
    assert model.training
    assert evaluate(task, model, batches(task, 2), one_rank()) == first


def test_a_fault_leaves_the_model_in_training_mode():
    task = TinyTask()
    model = task.build()
    task.collate = lambda samples: {"mask": torch.ones(1), "x": None}
    with pytest.raises(TypeError):
        evaluate(task, model, batches(task, 2), one_rank())
    assert model.training


def test_names_are_known_from_one_batch():
    task = TinyTask()
    model = task.build()
    seen = []
    model.register_forward_hook(lambda *_: seen.append(1))
    assert metric_names(task, model, batches(task, 1), one_rank()) == ["error", "samples", "units"]
    assert len(seen) == 1
