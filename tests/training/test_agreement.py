from __future__ import annotations

import pytest

from tests.training.ranks import agreed, waits_for_the_late_rank


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


def test_no_rank_waits_for_a_late_one_before_it_needs_the_result(two_ranks):
    (started_s, waited_s, units), (_, _, others) = two_ranks.run(waits_for_the_late_rank, 1.0)
    assert started_s < 0.5 < waited_s
    assert units == others == 3
