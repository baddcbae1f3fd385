"""Exact evaluation, and forgetting."""

import math
from contextlib import nullcontext

import pytest
import torch

from gearshift.training.agreement import Interruption
from gearshift.training.data.loader import EvaluationBatches
from gearshift.training.data.samples import Samples
from gearshift.training.evaluation.evaluate import HeldOut, HeldOutPart, evaluate, mean
from gearshift.training.evaluation.evaluator import Evaluator
from tests.training.ranks import tiny_run
from tests.training.tiny import TinyTask, make_settings, one_rank, run_tiny


def never():
    """No signal arrives."""
    return Interruption(one_rank())


def batches(task, micro_batch):
    samples = Samples(task, task.data("val"), 0)
    return EvaluationBatches(samples, micro_batch, one_rank(), make_settings().loader)


@pytest.mark.parametrize("micro_batch", [1, 2, 10])
def test_every_sample_counts_once_for_any_micro_batch(micro_batch):
    task = TinyTask(val=7)
    torch.manual_seed(0)
    model = task.build()
    found = evaluate(task, model, batches(task, micro_batch), never())
    whole = evaluate(task, model, batches(task, 7), never())
    assert found["samples"] == 7
    assert found == pytest.approx(whole, rel=1e-14)


@pytest.mark.parametrize("length", [1, 6, 7])
def test_two_ranks_have_the_metrics_of_one(two_ranks, length):
    changes = {"train": {"max_steps": 1}}
    alone = run_tiny(one_rank(), TinyTask(val=length), **changes).recorder.evaluations
    for found in two_ranks.run(tiny_run, {"val": length}, {}, changes):
        ((step, metrics),) = found["evaluations"]
        assert step == alone[0].step == 1
        assert metrics["samples"] == length
        assert metrics == pytest.approx(alone[0].metrics, rel=1e-12)


def test_the_model_is_in_evaluation_mode_during_evaluation_only():
    task = TinyTask(dropout=0.9)
    model = task.build()
    seen = []
    model.register_forward_hook(lambda module, args, out: seen.append(module.training))
    first = evaluate(task, model, batches(task, 2), never())
    assert not any(seen)
    assert model.training
    assert evaluate(task, model, batches(task, 2), never()) == first


def part(task):
    samples = Samples(task, task.data("val"), 0)
    batches = EvaluationBatches(samples, 2, one_rank(), make_settings().loader)
    return HeldOutPart(task, batches)


def test_the_mean_of_parts_is_weighted_by_samples_over_parts_with_the_metric():
    parts = [(1, {"a": 1.0, "b": math.nan}), (3, {"a": 5.0, "b": 2.0}), (4, {"c": 7.0})]
    assert mean(parts) == {"a": 4.0, "b": 2.0, "c": 7.0}
    assert math.isnan(mean([(1, {"a": math.nan})])["a"])


def test_old_and_new_data_are_evaluated_separately_and_together():
    torch.manual_seed(0)
    model = TinyTask().build()
    tasks = [TinyTask(val=3), TinyTask(val=5), TinyTask(val=8)]
    found = HeldOut([part(task) for task in tasks], 2).measure(model, never())
    alone = [evaluate(t, model, part(t).batches, never())["error"] for t in tasks]
    assert list(found) == ["val_old", "val_new", "val"]
    assert found["val_new"]["error"] == alone[2]
    assert found["val_old"]["error"] == pytest.approx((3 * alone[0] + 5 * alone[1]) / 8)
    assert found["val"]["error"] == pytest.approx((3 * alone[0] + 5 * alone[1] + 8 * alone[2]) / 16)


def test_metrics_before_an_experience_survive_a_resume():
    torch.manual_seed(0)
    model = TinyTask().build()

    def evaluator():
        return Evaluator(
            make_settings(), HeldOut([part(TinyTask(val=3)), part(TinyTask(val=5))], 4)
        )

    first, second = evaluator(), evaluator()
    first.evaluate_before(model, never(), nullcontext())
    before = first.facts()["forgetting"]["before"]
    second.resume(first.facts())
    with torch.no_grad():
        model.linear.weight.zero_()
    second.start(model, never())
    assert second.experience is None
    second.evaluate_before(model, never(), nullcontext())
    second.evaluate(model, never(), 1, is_last=True, is_due=True)
    summary = second.experience
    assert (summary["number"], summary["metric"]) == (4, "error")
    assert summary["old"]["before"]["error"] != summary["old"]["after"]["error"]
    assert summary["new"]["before"] == before["val_new"]
