"""The time split: work belongs to the part that it is done in, and parts add up to the run."""

import pytest
import torch

from gearshift.training.step_metrics import (
    BACKWARD,
    DATA,
    EVALUATION,
    FORWARD,
    OPTIMIZER,
    OTHER,
    SAVING,
    StepTimer,
)
from tests.training.ranks import tiny_run

PARTS = ("forward_time_s", "backward_time_s", "optimizer_time_s")


class Late:
    """torch's module of a device that is behind the host: it has passed the moments up to `reached`."""

    def __init__(self):
        self.seconds_now, self.reached = 0.0, float("inf")

    def synchronize(self):
        self.reached = float("inf")

    def current_stream(self, device):
        return self

    def record_event(self, event):
        event.at = self.seconds_now
        return event

    def Event(self, enable_timing):
        return Event(self)


class Event:
    def __init__(self, device):
        self.device = device

    def query(self):
        return self.at <= self.device.reached

    def elapsed_time(self, end):
        return 1000 * (end.at - self.at)


@pytest.fixture
def late(monkeypatch):
    made = Late()
    monkeypatch.setattr(torch, "get_device_module", lambda device: made)
    return made


@pytest.fixture
def split(late):
    made = StepTimer()
    made.start(torch.device("cuda"))
    return made


def train(split, late, steps, *, forward=2.0, backward=3.0, optimizer=1.0, data=0.5):
    """Steps of two micro-batches, with a quarter of a second between them."""
    for _ in range(steps):
        split.enter(DATA)
        late.seconds_now += data
        for _ in range(2):
            split.enter(FORWARD)
            late.seconds_now += forward
            split.enter(BACKWARD)
            late.seconds_now += backward
        split.enter(OPTIMIZER)
        late.seconds_now += optimizer
        split.enter(OTHER)
        late.seconds_now += 0.25


def test_a_line_has_the_means_of_its_steps(split, late):
    train(split, late, 1, forward=8.0)
    assert split.means(1) == {FORWARD: 16.0, BACKWARD: 6.0, OPTIMIZER: 1.0}
    train(split, late, 1)
    train(split, late, 1, forward=4.0, optimizer=3.0)
    assert split.means(2) == {FORWARD: 6.0, BACKWARD: 6.0, OPTIMIZER: 2.0}


def test_a_device_without_events_is_not_measured(late):
    timer = StepTimer()
    timer.start(torch.device("mps"))
    train(timer, late, 1)
    assert (timer.means(1), timer.summary(9.0)) == ({}, None)


def test_every_moment_belongs_to_one_part(split, late):
    late.seconds_now += 5.0
    train(split, late, 3)
    with split.paused(EVALUATION):
        late.seconds_now += 7.0
    with split.paused(SAVING):
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


def test_a_part_that_the_device_has_not_ended_counts_once_it_has(split, late):
    late.reached = 11.0  # in the update of the first step
    train(split, late, 2)
    assert split.means(1) == {FORWARD: 4.0, BACKWARD: 6.0, OPTIMIZER: 0.0}
    assert split.summary(100.0)["forward_s"] == 4.0
    late.reached = float("inf")
    assert split.means(1) == {FORWARD: 4.0, BACKWARD: 6.0, OPTIMIZER: 2.0}
    assert split.summary(100.0)["forward_s"] == 8.0


def test_a_resumed_run_continues_the_seconds_and_starts_new_means(split, late):
    train(split, late, 2)
    rest = StepTimer()
    rest.resume(split.facts(), 0.0)
    rest.start(torch.device("cuda"))
    train(rest, late, 1, forward=1.0)
    assert rest.means(1)[FORWARD] == 2.0
    assert rest.summary(100.0)["forward_s"] == 8.0 + 2.0


def test_steps_have_no_pauses_and_a_timed_one_its_end(monkeypatch):
    now = [10.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    timer = StepTimer(times_each_step=True)
    timer.start(torch.device("cpu"))
    now[0] = 20.0
    timer.begin_steps()
    for _ in range(2):
        now[0] += 3.0
        timer.end_step()
        with timer.paused(SAVING):
            now[0] += 100.0
    assert (timer.step_ends, timer.steps_s, timer.wall_s) == ([3.0, 6.0], 6.0, 216.0)
    assert timer.facts()[SAVING] == 200.0


def test_the_time_of_a_run_is_that_of_all_its_processes(monkeypatch):
    now = [10.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    timer = StepTimer()
    timer.resume({}, 500.0)
    now[0] = 13.0
    assert timer.wall_s == 503.0


@pytest.mark.parametrize("engine", ["fsdp", "zero3"])
def test_every_engine_has_all_parts(two_ranks, engine):
    changes = {"train": {"epochs": 2}, "log": {"every": 1}, "engine": engine}
    for found in two_ranks.run(tiny_run, {"dtype": torch.float32}, {}, changes):
        split = found["outcome"].time_split
        assert sum(split.values()) == pytest.approx(found["outcome"].wall_s)
        assert all(seconds > 0 for seconds in split.values())
        for line in found["lines"]:
            assert sum(getattr(line, name) for name in PARTS) <= line.step_time_s
