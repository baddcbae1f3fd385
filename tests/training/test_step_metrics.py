"""Step metrics and step timing."""

from dataclasses import replace

import pytest
import torch

from tests.training.tiny import one_rank, run_tiny
from training.callbacks.base import Step
from training.step_metrics import RunMetrics
from training.step_timer import StepTimer
from training.train_plan import TrainPlan

BUDGET = TrainPlan(10, 5, 8, 2, 4, 1, "tokens")


def step(number, *, skipped=False, units=10, loss=2.0, loss_scale=None, norm=1.5):
    parts = {"b": torch.tensor(20.0), "a": torch.tensor(5.0)}
    loss, norm = torch.tensor(loss), torch.tensor(norm)
    return Step(number, loss, parts, units, norm, 0.1, skipped, loss_scale, 0.5)


@pytest.mark.parametrize(("every", "expected"), [(1, [1, 2, 3, 4, 5, 6]), (4, [1, 4, 6]), (100, [1, 6])])
def test_first_last_and_every_nth_step_are_logged(every, expected):
    run = run_tiny(one_rank(), train={"epochs": 2}, log={"every": every})
    assert [line.step for line in run.recorder.lines] == expected


def test_step_metrics_have_their_step_and_means_since_the_last():
    record = RunMetrics(BUDGET, 3, "fp32", StepTimer())
    record.resume({"units": 100})
    assert [record.add(step(n)) for n in (1,)] == [True]
    record.line(one_rank())
    assert [record.add(step(n, loss=float(n))) for n in (2, 3)] == [False, True]
    line = record.line(one_rank())
    assert (line.step, line.epoch, line.samples, line.units) == (3, 0.6, 24, 130)
    assert (line.loss, line.parts) == (3.0, {"a": 0.5, "b": 2.0})
    assert (line.grad_norm, line.data_time_s) == (1.5, 0.5)
    assert line.units_per_s == pytest.approx(line.samples_per_s * 10 / 8)
    assert line.samples_per_s == pytest.approx(8 / line.step_time_s)
    assert line.mfu is None
    assert line.host_memory_bytes > 0
    assert (line.labelled, line.labelled_per_s) == (None, None)


def test_labels_are_counted_and_resumed_beside_what_is_computed():
    record = RunMetrics(BUDGET, 2, "fp32", StepTimer())
    record.resume({"units": 100, "labelled": 30})
    for number in (1, 2):
        record.add(replace(step(number), tokens=25))
    line = record.line(one_rank())
    assert (line.units, line.labelled) == (150, 50)
    assert line.labelled_per_s / line.units_per_s == pytest.approx(10 / 25)
    assert record.facts().items() >= {"units": 150, "labelled": 50}.items()


def test_a_skipped_step_is_counted_and_the_next_logged_instead():
    record = RunMetrics(BUDGET, 2, "fp32", StepTimer())
    record.add(step(1))
    record.line(one_rank())
    assert [record.add(step(2, skipped=True)), record.add(step(3))] == [False, True]
    line = record.line(one_rank())
    assert (line.step, line.skipped) == (3, 1)
    assert not record.add(step(4, skipped=True))
    assert not record.is_behind


def test_a_step_that_fp16_skipped_has_a_loss_to_show():
    record = RunMetrics(BUDGET, 2, "fp16", StepTimer())
    assert record.add(step(1, skipped=True, loss_scale=65536.0, norm=torch.inf))
    line = record.line(one_rank())
    assert (line.loss, line.skipped, line.loss_scale) == (2.0, 1, 65536.0)
