"""The time split: work belongs to the part that it is done in, and parts add up to the run."""

import time
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.checkpoint import checkpoint

from models.base import Loss
from tests.training.ranks import tiny_run
from tests.training.tiny import RecordingCallback, TinyNet, TinySplit, TinyTask, one_rank, run_tiny
from training.step_timer import BACKWARD, DATA, EVALUATION, FORWARD, OPTIMIZER, SAVING, StepTimer

PARTS = ("forward_time_s", "backward_time_s", "optimizer_time_s")


class Late:
    """The clock of a device that is behind the host: it has passed the marks up to `reached`."""

    def __init__(self):
        self.seconds_now, self.reached = 0.0, float("inf")

    def mark(self):
        return [self.seconds_now]

    def has_passed(self, mark):
        return mark[0] <= self.reached

    def seconds(self, begin, end):
        return end[0] - begin[0]


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


class Stopwatch:
    """Does work within a part, and measures it a second way."""

    def __init__(self):
        self.seconds = Counter()

    def work(self, part):
        began = time.perf_counter()
        np.linalg.svd(np.ones((60, 60)))
        self.seconds[part] += time.perf_counter() - began


class Slow(torch.autograd.Function):
    """The identity, with work in both directions."""

    @staticmethod
    def forward(context, x, watch):
        context.watch = watch
        watch.work(FORWARD)
        return x.clone()

    @staticmethod
    def backward(context, gradient):
        context.watch.work(BACKWARD)
        return gradient, None


class Recomputed(TinyNet):
    """Activation checkpointing: its forward pass runs a second time in the backward pass."""

    watch = None

    def forward(self, x):
        parts = iter((FORWARD, BACKWARD))

        def body(x):
            self.watch.work(next(parts))
            return self.linear(x)

        return checkpoint(body, x, use_reentrant=False) if self.training else self.linear(x)


class SlowSplit(TinySplit):
    watch = None

    def sample(self, index, draws):
        if self.watch is not None:
            self.watch.work(DATA)
        return super().sample(index, draws)


@dataclass
class SlowTask(TinyTask):
    """Works in its samples, its network and its loss."""

    watch: Stopwatch = field(default_factory=Stopwatch)

    def build(self):
        net = Recomputed(dtype=self.dtype)
        net.watch = self.watch
        return net

    def data(self, split):
        found = SlowSplit(self.train if split == "train" else self.val)
        found.watch = self.watch if split == "train" else None
        return found

    def loss(self, model, batch):
        x = Slow.apply(batch["x"].requires_grad_(), self.watch)
        return Loss(super().loss(model, batch | {"x": x}).sum, {})

    def metric(self):
        made = super().metric()
        update = made.update

        def slow(model, batch):
            self.watch.work(EVALUATION)
            return update(model, batch)

        made.update = slow
        return made


class Saved(RecordingCallback):
    def __init__(self):
        super().__init__()
        self.seconds = 0.0

    def saved(self, folder, step, seconds):
        super().saved(folder, step, seconds)
        self.seconds += seconds


@pytest.fixture
def slow_optimizer():
    """Works in each update of any optimizer, with the stopwatch that is put in the list."""
    watches = []
    hook = register_optimizer_step_pre_hook(lambda *_: watches[0].work(OPTIMIZER))
    yield watches
    hook.remove()


def test_work_belongs_to_the_part_that_it_is_done_in(slow_optimizer):
    task, saved = SlowTask(), Saved()
    slow_optimizer.append(task.watch)
    changes = {"train": {"epochs": 2}, "log": {"every": 2}, "eval": {"every": 3}}
    outcome = run_tiny(one_rank(), task, saved, save={"every": 2}, **changes).outcome
    split, seconds = outcome.time_split, task.watch.seconds
    assert sum(split.values()) == pytest.approx(outcome.wall_s)
    # Each piece of work lies within its part: what is measured outside is never less.
    assert set(seconds) == {DATA, FORWARD, BACKWARD, OPTIMIZER, EVALUATION}
    for part, least in {**seconds, SAVING: saved.seconds}.items():
        assert split[f"{part}_s"] >= least > 0, part
    assert sum(found.seconds for found in saved.evaluations) <= split["evaluation_s"]


@pytest.mark.parametrize("engine", ["fsdp", "zero3"])
def test_every_engine_has_all_parts(two_ranks, engine):
    changes = {"train": {"epochs": 2}, "log": {"every": 1}, "engine": engine}
    for found in two_ranks.run(tiny_run, {"dtype": torch.float32}, {}, changes):
        split = found["outcome"].time_split
        assert sum(split.values()) == pytest.approx(found["outcome"].wall_s)
        assert all(seconds > 0 for seconds in split.values())
        for line in found["lines"]:
            assert sum(getattr(line, name) for name in PARTS) <= line.step_time_s
