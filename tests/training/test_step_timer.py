"""The time split: work belongs to the part that it is done in, and parts add up to the run."""

import pytest
import torch

from tests.training.ranks import tiny_run
from training.step_timer import BACKWARD, DATA, EVALUATION, FORWARD, OPTIMIZER, SAVING, StepTimer

PARTS = ("forward_time_s", "backward_time_s", "optimizer_time_s")


class Late:
    """The clock of a device that is behind the host: it has passed the marks up to `reached`."""

    def __init__(self):
        self.seconds_now, self.reached = 0.0, float("inf")

    def mark(self):
        return [self.seconds_now]

    def seconds(self, begin, end, wait):
        return end[0] - begin[0] if wait or end[0] <= self.reached else None


@pytest.fixture
def late():
    return Late()


@pytest.fixture
def split(late):
    made = StepTimer()
    made.start(late)
    return made


def train(split, late, steps, *, forward=2.0, backward=3.0, optimizer=1.0, data=0.5):
    """Steps of two micro-batches, with a quarter of a second between them."""
    for _ in range(steps):
        with split.within(DATA):
            late.seconds_now += data
        for _ in range(2):
            split.enter(FORWARD)
            late.seconds_now += forward
            split.enter(BACKWARD)
            late.seconds_now += backward
        with split.within(OPTIMIZER):
            late.seconds_now += optimizer
        late.seconds_now += 0.25


def test_a_line_has_the_means_of_its_steps(split, late):
    assert split.means() == {}
    train(split, late, 1, forward=8.0)
    assert split.means() == {FORWARD: 16.0, BACKWARD: 6.0, OPTIMIZER: 1.0}
    train(split, late, 1)
    train(split, late, 1, forward=4.0, optimizer=3.0)
    assert split.means() == {FORWARD: 6.0, BACKWARD: 6.0, OPTIMIZER: 2.0}
    assert split.means() == {}


def test_every_moment_belongs_to_one_part(split, late):
    late.seconds_now += 5.0
    train(split, late, 3)
    with split.within(EVALUATION):
        late.seconds_now += 7.0
    with split.within(SAVING):
        late.seconds_now += 4.0
    found = split.summary(late.seconds_now + 10.0)  # the process started before
    assert found == {
        "data_s": 1.5,
        "forward_s": 12.0,
        "backward_s": 18.0,
        "optimizer_s": 3.0,
        "evaluation_s": 7.0,
        "saving_s": 4.0,
        "other_s": 5.0 + 3 * 0.25 + 10.0,
    }


def test_a_step_that_the_device_has_not_ended_counts_in_a_later_line(split, late):
    late.reached = 11.0  # in the update of the first step
    train(split, late, 2)
    assert split.means() == {}
    late.reached = 15.0  # in the second step
    assert split.means() == {FORWARD: 4.0, BACKWARD: 6.0, OPTIMIZER: 1.0}
    assert split.summary(100.0)["forward_s"] < 8.0
    split.read(wait=True)
    assert split.summary(100.0)["forward_s"] == 8.0
    assert split.means() == {FORWARD: 4.0, BACKWARD: 6.0, OPTIMIZER: 1.0}


def test_a_resumed_run_continues_the_seconds_and_starts_new_means(split, late):
    train(split, late, 2)
    rest = StepTimer()
    rest.resume(split.facts(), 0.0)
    rest.start(late)
    train(rest, late, 1, forward=1.0)
    assert rest.means()[FORWARD] == 2.0
    assert rest.summary(100.0)["forward_s"] == 8.0 + 2.0


@pytest.mark.parametrize("engine", ["fsdp", "zero3"])
def test_every_engine_has_all_parts(two_ranks, engine):
    changes = {"train": {"epochs": 2}, "log": {"every": 1}, "engine": engine}
    for found in two_ranks.run(tiny_run, {"dtype": torch.float32}, {}, changes):
        split = found["outcome"].time_split
        assert sum(split.values()) == pytest.approx(found["outcome"].wall_s)
        assert all(seconds > 0 for seconds in split.values())
        for line in found["lines"]:
            assert sum(getattr(line, name) for name in PARTS) <= line.step_time_s
