"""Steps are timed one by one, the first ones and all pauses left out."""

import statistics

import pytest
import torch

from tests.training.facts import train_plan
from tests.training.tiny import one_rank, run_tiny
from training.record import Record
from training.timing import Timing, percentile

CPU = torch.device("cpu")


class Clock:
    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds


def timed(*seconds):
    clock = Clock()
    timing = Timing(train_plan(), clock)
    timing.start(CPU)
    for one in seconds:
        clock.seconds += one
        timing.lap()
    return timing.summary()


@pytest.mark.parametrize(("steps", "left_out"), [(1, 0), (2, 1), (4, 1), (20, 4), (300, 10)])
def test_the_first_steps_are_left_out_and_one_at_least_stays(steps, left_out):
    summary = timed(*[9.0] * left_out, *[1.0] * (steps - left_out))
    assert (summary["steps"], summary["warmup_steps"]) == (steps - left_out, left_out)
    assert (summary["p10_s"], summary["median_s"], summary["p90_s"]) == (1.0, 1.0, 1.0)


def test_speed_is_that_of_the_median_step_over_all_ranks():
    summary = timed(9.0, 0.25, 0.25, 4.0)
    own = train_plan()
    assert summary["samples_per_s"] == own.global_batch * 4
    assert summary["batches_per_s"] == own.accumulation * own.world_size * 4


def test_the_spread_is_that_of_the_standard_library():
    laps = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4]
    tenths = statistics.quantiles(laps, n=10, method="inclusive")
    assert percentile(laps, 10) == pytest.approx(tenths[0])
    assert percentile(laps, 50) == pytest.approx(statistics.median(laps))
    assert percentile(laps, 90) == pytest.approx(tenths[8])


def test_a_pause_between_steps_is_no_part_of_one():
    clock = Clock()
    record = Record(train_plan(), 100, "fp32", is_timed=True, now=clock)
    record.start(CPU)
    for step in run_tiny(one_rank()).listener.steps:
        clock.seconds += 2
        record.add(step)
        with record.paused():
            clock.seconds += 50
    assert record.timing["median_s"] == 2.0
    assert record.timing["p90_s"] == 2.0


def test_a_run_is_timed_where_its_settings_say_so_and_learns_the_same():
    changes = {"train": {"epochs": 4, "timing": True}, "eval": {"every": 2}}
    run = run_tiny(one_rank(), **changes)
    plain = run_tiny(one_rank(), train={"epochs": 4}, eval={"every": 2})
    assert (run.outcome.timing["steps"], run.outcome.timing["warmup_steps"]) == (10, 2)
    assert run.outcome.timing["median_s"] > 0
    assert plain.outcome.timing is None
    for name, weight in run.weights.items():
        assert torch.equal(weight, plain.weights[name])
