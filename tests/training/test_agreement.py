from __future__ import annotations

import pytest

from tests.training.ranks import agreed
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
    assert two_ranks.run(agreed, units, flags) == [({"": expected[0]}, expected[1])] * 2


def test_one_rank_agrees_with_itself():
    assert agree(one_rank(), {"": 5}, 3) == ({"": 5}, 3)
