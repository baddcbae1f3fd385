"""A rank that delays the others is named with its host; equal ranks never are."""

import random
from types import SimpleNamespace

from tests.training.tiny import RecordingCallback
from training.callbacks.callback_list import CallbackList
from training.stragglers import Stragglers


def reported(events):
    return [(kind, facts["rank"], facts["what"]) for kind, facts in events]


def started(rank, *callbacks):
    """What compares two ranks, without their processes."""
    world = SimpleNamespace(rank=rank, size=2, broadcast=lambda *_: b"a")
    return Stragglers(1.5, world, CallbackList(callbacks), 0)


def events_of(computing, waits=(0.0, 0.0)):
    """The events of two ranks that compute for so many seconds in each step, and wait for data."""
    recorder = RecordingCallback()
    ranks = [started(0, recorder), started(1)]
    for step, seconds in enumerate(computing, 1):
        for rank, computing_s, data_s in zip(ranks, seconds, waits, strict=True):
            rank.note(
                SimpleNamespace(step=step, data_time_s=data_s, step_time_s=2 * max(seconds)), computing_s
            )
        times = [rank.own_times() for rank in ranks]
        for rank in ranks:
            rank.update([a + b for a, b in zip(*times, strict=True)])
    return recorder.events


def test_a_rank_that_waits_for_its_data_is_named_with_its_times():
    ((_, facts),) = events_of([(1.0, 1.0)] * 60, waits=(0.1, 0.9))
    assert (facts["rank"], facts["what"]) == (1, "data")
    assert facts["seconds"] > 1.5 * facts["median_seconds"] > 0


def test_a_single_slow_step_is_no_straggler():
    steps = [(1.0, 1.0)] * 60
    assert events_of([*steps, (1.0, 400.0), *steps]) == []
    assert reported(events_of([*steps, *[(1.0, 2.0)] * 60])) == [("straggler", 1, "step")]


def test_equal_ranks_are_not_named_on_a_busy_machine():
    # A processor that is taken away doubles a step, at either rank and for some steps in a row.
    draw = random.Random(0)
    seconds = [draw.choice([(1.0, 1.0), (2.0, 1.0), (1.0, 2.0)]) for _ in range(100)]
    assert events_of(pair for pair in seconds for _ in range(3)) == []
