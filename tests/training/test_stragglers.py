"""A rank that delays the others is named with its host; equal ranks never are."""

import random
import socket
from unittest.mock import patch

import numpy as np
import pytest

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


def events_of_hosts(world, hosts, *arguments):
    with patch.object(socket, "gethostname", lambda: hosts[world.rank]):
        return events_of(world, *arguments)


@pytest.mark.parametrize("odd_rank", [0, 1])
@pytest.mark.parametrize("what", ["step", "data"])
def test_either_rank_is_named_with_its_own_host_and_times(two_ranks, odd_rank, what):
    slow = (2.0, 1.0) if odd_rank == 0 else (1.0, 2.0)
    computing, waits = (slow, (0.0, 0.0)) if what == "step" else ((1.0, 1.0), slow)
    ranks = two_ranks.run(events_of_hosts, ("first", "second"), [computing] * 20, waits)
    for events in ranks:
        ((kind, facts),) = events
        assert (kind, facts["rank"], facts["what"]) == ("straggler", odd_rank, what)
        assert facts["host"] == ("first", "second")[odd_rank]
        assert (facts["seconds"], facts["median_seconds"]) == (2.0, 1.0)


@pytest.mark.parametrize(("seconds", "is_named"), [(1.49, False), (1.51, True)])
def test_a_rank_is_slow_from_the_ratio_on(two_ranks, seconds, is_named):
    for events in two_ranks.run(events_of, [(1.0, seconds)] * 20):
        assert bool(events) == is_named


def test_a_rank_that_is_slow_by_less_than_a_tenth_of_a_step_is_not_named(two_ranks):
    """Steps take four seconds: twice as long for its data is .39 s more, or .41."""
    for waits, is_named in (((0.3, 0.69), False), ((0.3, 0.71), True)):
        for events in two_ranks.run(events_of, [(2.0, 2.0)] * 20, waits):
            assert bool(events) == is_named


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
