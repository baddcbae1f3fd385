"""A rank that delays the others is named with its host; equal ranks never are."""

import random
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tests.training.tiny import RecordingCallback
from tests.training.uneven import train
from training.callbacks.callback_list import CallbackList
from training.stragglers import Stragglers

SLOW = {"times": 12, "steps": 2000, "until": 1}
READS = {"reads": 20, "steps": 2000, "until": 1}
AGAIN = {"steps": 2000, "until": 2}


def reported(events):
    return [(kind, facts["rank"], facts["what"]) for kind, facts in events]


@pytest.mark.parametrize("engine", ["ddp", pytest.param("zero3", marks=pytest.mark.slow)])
def test_a_rank_that_computes_more_is_named_until_it_keeps_up(worlds, engine):
    first, second = worlds[2].run(train, engine, [SLOW, AGAIN])
    assert reported(first) == [("straggler", 1, "step"), ("straggler_gone", 1, "step")]
    assert first == second
    facts = first[0][1]
    assert facts["seconds"] > 1.5 * facts["median_seconds"] > 0


def test_a_rank_that_waits_for_its_data_is_named(worlds):
    first, _ = worlds[2].run(train, "ddp", [READS])
    assert reported(first) == [("straggler", 1, "data")]


def started(rank, timer, *callbacks):
    """What compares two ranks, without their processes."""
    world = SimpleNamespace(rank=rank, size=2, device=torch.device("cpu"), broadcast=lambda *_: b"a")
    engine = SimpleNamespace(world=world, gathers_weights=False)
    return Stragglers(1.5, engine, nn.Linear(1, 1), CallbackList(callbacks), timer, 0)


def events_of(computing):
    """The events of two ranks that compute for so many seconds in each step."""
    recorder = RecordingCallback()
    timers = [SimpleNamespace(computing_s=None) for _ in range(2)]
    ranks = [started(0, timers[0], recorder), started(1, timers[1])]
    for step, seconds in enumerate(computing, 1):
        for rank, timer, computing_s in zip(ranks, timers, seconds, strict=True):
            timer.computing_s = computing_s
            rank.note(SimpleNamespace(step=step, data_time_s=0.0, step_time_s=2 * max(seconds)))
        times = [rank.own_times() for rank in ranks]
        for rank in ranks:
            rank.update([a + b for a, b in zip(*times, strict=True)])
    return recorder.events


def test_a_single_slow_step_is_no_straggler():
    steps = [(1.0, 1.0)] * 60
    assert events_of([*steps, (1.0, 400.0), *steps]) == []
    assert reported(events_of([*steps, *[(1.0, 2.0)] * 60])) == [("straggler", 1, "step")]


def test_equal_ranks_are_not_named_on_a_busy_machine():
    # A processor that is taken away doubles a step, at either rank and for some steps in a row.
    draw = random.Random(0)
    seconds = [draw.choice([(1.0, 1.0), (2.0, 1.0), (1.0, 2.0)]) for _ in range(100)]
    assert events_of(pair for pair in seconds for _ in range(3)) == []
