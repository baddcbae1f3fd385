import pytest

from gearshift.training.agreement import agree_later, first_error
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
