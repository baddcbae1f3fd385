"""Step metrics and step timing."""

from dataclasses import replace
from itertools import accumulate
from statistics import median

import pytest
import torch

from gearshift.training.callbacks.base import Step
from gearshift.training.step_metrics import RunMetrics, StepTimer, timing
from gearshift.training.train_plan import TrainPlan
from tests.training.tiny import one_rank, run_tiny

BUDGET = TrainPlan(10, 5, 8, 2, 4, 1, "tokens")


def step(number, *, skipped=False, units=10, loss=2.0, loss_scale=None, norm=1.5, data_s=0.5):
    parts = {"b": torch.tensor(20.0), "a": torch.tensor(5.0)}
    loss, norm = torch.tensor(loss), torch.tensor(norm)
    return Step(number, loss, parts, units, norm, 0.1, skipped, loss_scale, data_s)


@pytest.mark.parametrize(
    ("every", "expected"), [(1, [1, 2, 3, 4, 5, 6]), (4, [1, 4, 6]), (100, [1, 6])]
)
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


def logged_by_a_rank(world):
    """The line of a step whose loss and parts are 1 on rank 0, and 3 on rank 1."""
    record = RunMetrics(BUDGET, 1, "fp32", StepTimer())
    value = torch.tensor(1.0 + 2 * world.rank)
    record.add(Step(1, value, {"a": value}, 8, torch.tensor(1.0), 0.1, False, None, 0.5))
    line = record.line(world)
    return line.loss, line.parts


def test_a_loss_is_the_mean_of_ranks_and_a_part_their_sum_over_units(two_ranks):
    assert two_ranks.run(logged_by_a_rank) == [(2.0, {"a": 4 / 8})] * 2


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (4, 1), (30, 6), (80, 10)])
def test_times_of_steps_leave_out_the_first_ones(steps, warmup):
    """A warm-up of 10 steps, or of one in five where there are few; a step stays."""
    seconds = [9.0] * warmup + [1.0 + n % 3 for n in range(steps - warmup)]
    found = timing(list(accumulate(seconds)), BUDGET)
    expected = median(seconds[warmup:])
    assert (found["steps"], found["warmup_steps"]) == (steps - warmup, warmup)
    assert found["median_s"] == pytest.approx(expected)
    assert found["p90_s"] <= 3.0 + 1e-9
    assert found["samples_per_s"] == pytest.approx(8 / expected)
    assert found["batches_per_s"] == pytest.approx(4 / expected)  # micro-batches


def sums_of(world, every):
    """How many sums over ranks, and lines, a run has that logs so often."""
    sums = []
    world_sum = world.sum
    world.sum = lambda value: sums.append(value.numel()) or world_sum(value)
    try:
        run = run_tiny(world, train={"epochs": 2}, log={"every": every})
    finally:
        del world.sum
    return len(sums), len(run.recorder.lines)


def test_a_logged_step_has_one_sum_over_ranks(two_ranks):
    for (often, lines), (rarely, others) in zip(
        *(two_ranks.run(sums_of, every) for every in (1, 100)), strict=True
    ):
        assert often - rarely == lines - others > 3


def rank_times(world):
    record = RunMetrics(BUDGET, 3, "fp32", StepTimer())
    for number in (1, 2):
        record.add(step(number, loss=2.0 + world.rank, data_s=0.25 + world.rank))
    line = record.line(world)
    return line.loss, line.parts, record.rank_times


def test_a_line_has_the_times_of_all_ranks(two_ranks):
    for loss, parts, times in two_ranks.run(rank_times):
        assert (loss, parts) == (2.5, {"a": 1.0, "b": 4.0})
        assert times.shape == (3, 2)
        assert times[1].tolist() == [0.25, 1.25]
        assert (times[2] > 0).all()
