from __future__ import annotations

import math

import pytest
import torch

from tests.training.tiny import TinyTask, make_settings, one_rank, run_tiny
from training.data.loader import EvaluationBatches
from training.data.samples import Samples
from training.evaluation.evaluate import evaluate
from training.evaluation.forgetting import Forgetting, Part, mean


def part(task: TinyTask) -> Part:
    samples = Samples(task, task.data("val"), 0)
    batches = EvaluationBatches(samples, 2, one_rank(), make_settings().loader)
    return Part(task, batches, len(samples))


def test_the_mean_of_parts_is_by_samples_and_over_those_that_know_a_metric():
    parts = [(1, {"a": 1.0, "b": math.nan}), (3, {"a": 5.0, "b": 2.0}), (4, {"c": 7.0})]
    assert mean(parts) == {"a": 4.0, "b": 2.0, "c": 7.0}
    assert math.isnan(mean([(1, {"a": math.nan})])["a"])


def test_old_and_new_are_measured_apart_and_together():
    torch.manual_seed(0)
    model = TinyTask().build()
    tasks = [TinyTask(val=3), TinyTask(val=5), TinyTask(val=8)]
    found = Forgetting(2, [part(tasks[0]), part(tasks[1])], part(tasks[2])).evaluate(
        model, one_rank()
    )
    alone = [evaluate(t, model, part(t).batches, one_rank())["error"] for t in tasks]
    assert list(found) == ["val_old", "val_new", "val"]
    assert found["val_new"]["error"] == alone[2]
    assert found["val_old"]["error"] == pytest.approx((3 * alone[0] + 5 * alone[1]) / 8)
    assert found["val"]["error"] == pytest.approx((3 * alone[0] + 5 * alone[1] + 8 * alone[2]) / 16)


def test_what_was_measured_before_is_kept_for_a_process_that_goes_on():
    torch.manual_seed(0)
    model = TinyTask().build()
    first = Forgetting(4, [part(TinyTask(val=3))], part(TinyTask(val=5)))
    assert first.learnt() is None
    first.look_before(model, one_rank())
    second = Forgetting(4, [part(TinyTask(val=3))], part(TinyTask(val=5)))
    second.resume(first.facts())
    assert second.looked_before and second.learnt() is None
    with torch.no_grad():
        model.linear.weight.zero_()
    second.evaluate(model, one_rank())
    learnt = second.learnt()
    assert learnt["number"] == 4
    assert learnt["old"]["before"]["error"] != learnt["old"]["after"]["error"]
    assert learnt["new"]["before"] == first.facts()["before"]["val_new"]


def test_a_run_that_is_no_experience_tells_of_none():
    assert run_tiny(one_rank(), TinyTask()).outcome.experience is None
