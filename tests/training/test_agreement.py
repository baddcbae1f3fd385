import pytest

from gearshift.training.agreement import agree_later, first_error
from gearshift.training.callbacks.base import Action
from tests.training.odd_ranks import attempted, failing, interrupted, without_worker
from tests.training.ranks import agreed
from tests.waiting import until


@pytest.mark.parametrize(
    ("units", "flags", "expected"),
    [
        ([3, 4], [0, 0], (7, 0)),
        ([0, 0], [1, 0], (0, 1)),
        ([2**40, 5], [0b1010, 0b0011], (2**40 + 5, 0b1011)),
        ([1, 1], [128, 128], (2, 128)),
    ],
)
def test_units_add_up_and_flags_of_any_rank_count(two_ranks, units, flags, expected):
    agreements = two_ranks.run(agreed, units, flags)
    assert agreements == [({"": expected[0]}, expected[1])] * 2


def started_before_the_late_rank(world, flag):
    """The agreed units; rank 1 takes part only once the agreement of rank 0 has started."""
    if world.rank == 1:
        until(flag.exists)
    result = agree_later(world, {"": 1 + world.rank}, 0)
    if world.rank == 0:
        flag.touch()
    return result()[0][""]


def test_no_rank_waits_for_a_late_one_before_it_needs_the_result(two_ranks, tmp_path):
    assert two_ranks.run(started_before_the_late_rank, tmp_path / "started") == [3, 3]


def error_of_ranks(world, errors):
    return first_error(world, errors[world.rank])


@pytest.mark.parametrize(
    ("errors", "agreed_error"),
    [
        ([None, None], None),
        (["one", None], "rank 0: one"),
        ([None, "another"], "rank 1: another"),
        (["one", "another"], "rank 0: one"),
        ([None, ""], "rank 1: "),
    ],
)
def test_the_error_of_the_first_rank_that_has_one_is_that_of_all(two_ranks, errors, agreed_error):
    assert two_ranks.run(error_of_ranks, errors) == [agreed_error] * 2


@pytest.mark.parametrize("gathers_weights", [False, True])
@pytest.mark.parametrize("looks", range(1, 11))
def test_a_signal_at_one_rank_interrupts_both_in_the_same_batch(two_ranks, looks, gathers_weights):
    """Three batches of two calls: asked before each batch and each call, and at the end."""
    odd_rank = looks % 2
    ranks = two_ranks.run(interrupted, odd_rank, looks, gathers_weights)
    started = (looks + 1) // 3
    for rank, (batches, calls, actions) in enumerate(ranks):
        assert batches == [*range(started)]
        assert actions == Action.SIGNAL
        # Where calls gather weights, no rank makes one without the other.
        is_first = rank == odd_rank or gathers_weights
        assert calls == (looks - 1 - started if is_first else 2 * started)


def test_without_a_signal_all_batches_are_evaluated(two_ranks):
    for gathers_weights in (False, True):
        whole = [0, 1, 2], 6, Action.NOTHING
        assert two_ranks.run(interrupted, 0, 100, gathers_weights) == [whole] * 2


@pytest.mark.parametrize("odd_rank", [0, 1])
@pytest.mark.parametrize("at_call", [0, 2, 3])
def test_where_one_rank_fails_all_have_a_failure_after_as_many_calls(two_ranks, odd_rank, at_call):
    ranks = two_ranks.run(failing, odd_rank, at_call)
    assert {calls for _, calls in ranks} == {at_call}
    counts = [len(failures) for failures, _ in ranks]
    assert counts == ([0, 0] if at_call == 3 else [1, 1])
    if at_call < 3:
        texts = [failures[0] for failures, _ in ranks]
        assert texts[odd_rank] == "no text" and "another rank" in texts[1 - odd_rank]


@pytest.mark.parametrize("odd_rank", [0, 1])
@pytest.mark.parametrize("at_batch", [0, 2])
def test_a_worker_that_dies_at_one_rank_ends_the_batches_of_both(two_ranks, odd_rank, at_batch):
    error = f"rank {odd_rank}: killed"
    ranks = two_ranks.run(without_worker, odd_rank, at_batch)
    assert ranks == [([*range(at_batch)], error)] * 2


def test_ranks_learn_of_an_error_of_one_and_keep_their_own_results(two_ranks):
    full = OSError("disk full")
    assert two_ranks.run(attempted, [None, None]) == [(0, None), (1, None)]
    assert two_ranks.run(attempted, [None, full]) == [
        (0, "rank 1: disk full"),
        (None, "rank 1: disk full"),
    ]
    assert two_ranks.run(attempted, [full, None]) == [
        (None, "rank 0: disk full"),
        (1, "rank 0: disk full"),
    ]
