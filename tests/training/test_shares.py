"""Ranks with other shares of the batch: the losses of one process, under every engine."""

from contextlib import ExitStack
from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import nn

from gearshift.engines.catalog import ENGINES, missing
from gearshift.training.callbacks.base import Action, CallbackList
from gearshift.training.shares import Balance, LayerTimer, apportion, with_shares
from tests.training.facts import train_plan
from tests.training.tiny import RecordingCallback, TwoTermsTask, one_rank, run_tiny

CHANGES = {
    "train": {"epochs": 2},
    "optim": {"lr": 0.05},
    "eval": {"every": 3},
    "save": {"every": 1},
    "log": {"every": 1},
}
CHANGING = [(0, [5, 3]), (2, [2, 6]), (4, [4, 4])]
"""In micro-batches of 3 and 2 samples and of 2 and 1; and what a replay of `auto` repeats."""


class Sizes(TwoTermsTask):
    """Notes the sizes of the micro-batches that are trained."""

    def loss(self, model, batch):
        self.sizes = [*getattr(self, "sizes", []), len(batch["x"])]
        return super().loss(model, batch)


def run_with(world, engine="local", shares=(), requests=None, micro_batch=2):
    """The sizes of the micro-batches of a rank, its numbers, and what its checkpoints know."""
    task = Sizes(dtype=torch.float32)
    callback = RecordingCallback(requests)
    changes = CHANGES | {"engine": engine, "shares": shares, "micro_batch": micro_batch}
    run = run_tiny(world, task, callback, **changes)
    lines = run.recorder.lines
    numbers = {
        "losses": [line.loss for line in lines],
        "norms": [line.grad_norm for line in lines],
        "labelled": [line.labelled for line in lines],
        "evaluations": [found.metrics["error"] for found in run.recorder.evaluations],
    }
    facts = {step: kept["facts"]["shares"] for step, kept in run.shelf.saved.items()}
    return task.sizes, numbers, facts, {step: run.shelf.saved[step] for step in (3,)}


def slow(*engines):
    return [pytest.param(engine, marks=pytest.mark.slow) for engine in engines]


@pytest.mark.parametrize("engine", ["ddp", *slow("oss", "fsdp", "zero1", "zero2", "zero3")])
def test_ranks_whose_shares_change_have_the_losses_of_one_process(two_ranks, engine):
    if absent := missing(ENGINES[engine]):
        pytest.skip(f"{absent[0]} is not installed")
    _, whole, _, _ = run_with(one_rank())
    ranks = two_ranks.run(run_with, engine, CHANGING)
    for _, numbers, facts, _ in ranks:
        for name, expected in whole.items():
            assert numbers[name] == pytest.approx(expected, rel=1e-6, abs=1e-6), name
        assert facts[6] == [[step, samples] for step, samples in CHANGING]
    expected = ([3, 2] * 2 + [1, 1] * 2 + [2, 2] * 2, [2, 1] * 2 + [3, 3] * 2 + [2, 2] * 2)
    assert tuple(sizes for sizes, *_ in ranks) == expected


def test_a_smaller_micro_batch_keeps_the_batch_and_gives_each_rank_a_sample(two_ranks):
    requests = {1: Action.SMALLER_BATCH, 3: Action.SMALLER_BATCH}
    _, whole, _, _ = run_with(one_rank())
    ranks = two_ranks.run(run_with, "ddp", [(0, [6, 2])], requests, 4)
    assert [sizes for sizes, *_ in ranks] == [[6] * 2 + [3, 3] * 4, [2] * 2 + [1, 1] * 4]
    for _, numbers, _, _ in ranks:  # a second halving would leave a micro-batch empty
        assert numbers["losses"] == pytest.approx(whole["losses"], rel=1e-6)


def resumed(world, kept, shares):
    """The losses of a run with other shares from step 3 on."""
    from tests.training.shelf import Shelf

    before = Shelf({3: kept}).before(3)
    task = TwoTermsTask(dtype=torch.float32)
    run = run_tiny(world, task, engine="ddp", shares=shares, before=before, **CHANGES)
    return [line.loss for line in run.recorder.lines]


def test_a_run_resumes_with_other_shares_and_back(two_ranks):
    _, whole, _, _ = run_with(one_rank())
    for shares, others in (((), [(0, [6, 2])]), ([(0, [6, 2])], ())):
        _, numbers, _, saved = two_ranks.run(run_with, "ddp", shares)[0]
        for losses in two_ranks.run(resumed, saved[3], others):
            expected = pytest.approx(whole["losses"], rel=1e-6)
            assert numbers["losses"][:3] + losses == expected


def test_samples_are_apportioned_so_that_the_slowest_rank_is_ready_early():
    assert apportion(8, [3, 1], 1) == [6, 2]
    assert apportion(8, [5, 3, 2], 1) == [5, 2, 1]
    assert apportion(8, [100, 1, 1], 2) == [4, 2, 2]
    assert apportion(12, [10, 1, 1], 1, [6, 12, 12]) == [6, 3, 3]


def test_shares_of_a_start_with_other_ranks_do_not_count_and_no_micro_batch_is_empty():
    plan = train_plan(world_size=2, global_batch=16, micro_batch=1, accumulation=8)
    found = with_shares(plan, "auto", [(0, [5, 5, 6]), (3, [14, 2])])
    assert found.shares == [(3, [8, 8])]
    assert found.fits_shares
    plan = train_plan(world_size=2, global_batch=16, micro_batch=8, accumulation=1, until=9)
    found = with_shares(plan, "auto", [(3, [14, 2])])
    assert not found.fits_shares
    assert [found.samples_by_rank(step) for step in (2, 3)] == [[8, 8], [14, 2]]
    assert with_shares(plan, [3, 1]).shares == [(0, [12, 4])]


def fits_of(world, speeds, shares=()):
    """The events of a rank, if ranks compute so many samples a second; each step is a line."""
    recorder = RecordingCallback()
    plan = train_plan(world_size=2, global_batch=32, micro_batch=16, accumulation=1, shares=shares)
    plan = with_shares(plan, "auto", shares)
    balance = Balance(bool(shares), world, CallbackList([recorder]))
    shares = [*plan.shares]
    for step, of_ranks in enumerate(speeds, 1):
        samples = replace(plan, shares=shares).samples_by_rank(step)
        batches = SimpleNamespace(samples_by_rank=samples, accumulation=1, global_batch=32)
        seconds = np.array(samples) / np.array(of_ranks)
        times = np.array([seconds, seconds, [3 * seconds.max()] * 2])
        fitted = balance.fit(step, times, batches)
        if fitted is not None:
            shares.append((step, fitted))
    return shares, recorder.kinds()


FAST, EQUAL, TURNED = (30.0, 10.0), (10.0, 10.0), (10.0, 30.0)


@pytest.mark.parametrize(
    ("speeds", "before", "expected"),
    [
        # A line that compiles, and the first block of four.
        ([EQUAL, *[FAST] * 9], [], [(5, [24, 8])]),
        ([EQUAL] * 60, [], []),
        # One more decides, after a line that compiles: now no rank waits.
        ([(20.0, 10.0)] * 5 + [FAST] * 9, [], [(5, [22, 10]), (10, [24, 8])]),
        # Later it takes four blocks in a row.
        ([FAST] * 10 + [TURNED] * 17, [], [(5, [24, 8]), (26, [8, 24])]),
        ([FAST] * 12 + ([TURNED] * 9 + [FAST] * 9) * 4, [], [(5, [24, 8])]),
        ([EQUAL] * 17, [(0, [24, 8])], [(0, [24, 8]), (17, [16, 16])]),
    ],
)
def test_shares_follow_the_speed_of_ranks_and_no_hiccup(two_ranks, speeds, before, expected):
    for shares, kinds in two_ranks.run(fits_of, speeds, before):
        assert shares == expected
        assert kinds == ["shares"] * (len(expected) - len(before))


class Clock:
    """Advances by one at each look."""

    time = 0

    def now(self):
        self.time += 1
        return self.time

    def seconds_between(self, begin, end):
        return end - begin


def test_the_time_of_layers_has_no_wait_for_their_weights_and_no_evaluation():
    model, clock = (
        nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Sequential(nn.Linear(2, 2))),
        Clock(),
    )

    def gather(*_):
        clock.time += 100

    for layer in (model[0], model[2][0]):
        layer.register_forward_pre_hook(gather)
        layer.register_forward_hook(gather)
    timer = LayerTimer(model, clock)
    model(torch.zeros(1, 2))
    assert timer.seconds() == 2
    model.eval()(torch.zeros(1, 2))
    assert timer.seconds() == 0


@pytest.mark.parametrize(
    ("speeds", "expected"),
    [
        ((12.0, 10.0), [18, 14]),
        ((10.0, 12.0), [15, 17]),
        ((11.0, 10.0), None),
        ((10.0, 11.0), None),
    ],
)
def test_shares_change_for_a_gain_of_the_slowest_rank_of_a_twentieth(two_ranks, speeds, expected):
    """Of 1.6 seconds 1.5 are left, or 1.545."""
    for shares, _ in two_ranks.run(fits_of, [speeds] * 6):
        assert shares == ([(5, expected)] if expected else [])


def test_a_replay_of_shares_that_changed_twice_is_equal_bit_by_bit(two_ranks):
    shares = [(0, [5, 3]), (1, [2, 6]), (4, [6, 2])]
    ranks = two_ranks.run(run_with, "ddp", shares)
    for (_, numbers, _, saved), losses in zip(
        ranks, two_ranks.run(resumed, ranks[0][3][3], shares), strict=True
    ):
        assert sorted(saved) == [3]
        assert losses == numbers["losses"][3:]


def most_by_memory(world, samples, used, free, reserved):
    """The samples of each rank that fit, on GPUs with these bytes; the state takes 100."""
    gpu = SimpleNamespace(
        rank=world.rank, size=world.size, sum=world.sum, device=torch.device("cuda")
    )
    answers = {
        "memory_allocated": 100,
        "max_memory_allocated": 100 + used[world.rank],
        "mem_get_info": (free[world.rank], 10_000),
        "memory_reserved": 100 + reserved[world.rank],
    }
    with ExitStack() as stack:
        for name, answer in answers.items():
            stack.enter_context(patch.object(torch.cuda, name, lambda _, answer=answer: answer))
        balance = Balance(False, gpu, CallbackList([]))
        return balance._most(SimpleNamespace(samples_by_rank=samples))


@pytest.mark.parametrize(
    ("used", "free", "reserved", "expected"),
    [
        # Nine tenths of what is free or kept by torch, over the bytes of a sample.
        ((80, 160), (400, 400), (0, 0), [36, 36]),
        ((80, 160), (300, 100), (100, 300), [36, 36]),
        ((80, 80), (400, 200), (0, 0), [36, 36]),
        # Those that a rank has fit it.
        ((80, 160), (10, 10), (0, 0), [8, 16]),
    ],
)
def test_a_share_is_bounded_by_the_memory_of_its_rank(two_ranks, used, free, reserved, expected):
    assert two_ranks.run(most_by_memory, [8, 16], used, free, reserved) == [expected] * 2
