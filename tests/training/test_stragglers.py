"""A rank that delays the others is named with its host; equal ranks never are."""

import random
import socket

import numpy as np

from gearshift.training.callbacks.base import CallbackList
from gearshift.training.stragglers import Stragglers
from tests.training.tiny import RecordingCallback


def events_of(world, computing, waits=(0.0, 0.0), gathers_weights=False):
    """The events of a rank, if ranks compute for so many seconds in each step, and wait for data."""
    recorder = RecordingCallback()
    stragglers = Stragglers(1.5, world, CallbackList([recorder]))
    for step, seconds in enumerate(computing, 1):
        times = np.array([seconds, waits, [2 * max(seconds)] * 2])
        stragglers.compare(step, times, gathers_weights)
    return recorder.events


def test_a_rank_that_waits_for_its_data_is_named_with_its_times_on_all_ranks(two_ranks):
    events = two_ranks.run(events_of, [(1.0, 1.0)] * 60, (0.1, 0.9))
    assert events[0] == events[1]
    ((kind, facts),) = events[0]
    assert (kind, facts["rank"], facts["what"], facts["host"]) == (
        "straggler",
        1,
        "data",
        socket.gethostname(),
    )
    assert facts["seconds"] > 1.5 * facts["median_seconds"] > 0
    assert facts["at"] == 17  # the first step, and four blocks of four


def test_a_single_slow_step_is_no_straggler(two_ranks):
    steps = [(1.0, 1.0)] * 60
    assert two_ranks.run(events_of, [*steps, (1.0, 400.0), *steps]) == [[], []]
    events, _ = two_ranks.run(events_of, [*steps, *[(1.0, 2.0)] * 60])
    assert [(kind, facts["rank"], facts["what"]) for kind, facts in events] == [
        ("straggler", 1, "step")
    ]


def test_forward_passes_that_gather_weights_are_not_compared(two_ranks):
    steps = [(1.0, 2.0)] * 60
    for waits, expected in (((0.0, 0.0), []), ((0.1, 2.0), ["data"])):
        for events in two_ranks.run(events_of, steps, waits, True):
            assert [facts["what"] for _, facts in events] == expected


def test_equal_ranks_are_not_named_on_a_busy_machine(two_ranks):
    # A processor that is taken away doubles a step, at either rank and for some steps in a row.
    draw = random.Random(0)
    seconds = [draw.choice([(1.0, 1.0), (2.0, 1.0), (1.0, 2.0)]) for _ in range(100)]
    assert two_ranks.run(events_of, [pair for pair in seconds for _ in range(3)]) == [[], []]
