from __future__ import annotations

import pytest

from tests.training.ranks import agreed, waits_for_the_late_rank
from tests.training.tiny import one_rank
from training.agreement import agree


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
    agreements = two_ranks.run(agreed, units, flags, [[], []])
    assert agreements == [({"": expected[0]}, expected[1], [])] * 2


def test_further_numbers_are_added_up_too(two_ranks):
    agreements = two_ranks.run(agreed, [3, 4], [2, 0], [[1, 2, 2**60], [10, 20, 5]])
    assert agreements == [({"": 7}, 2, [11, 22, 2**60 + 5])] * 2


def test_no_rank_waits_for_a_late_one_before_it_needs_the_result(two_ranks):
    (started_s, waited_s, units), (_, _, others) = two_ranks.run(waits_for_the_late_rank, 1.0)
    assert started_s < 0.5 < waited_s
    assert units == others == 3


def test_one_rank_agrees_with_itself():
    assert agree(one_rank(), {"": 5}, 3, [8]) == ({"": 5}, 3, [8])
