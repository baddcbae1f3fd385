"""The threads of a rank, and the cores it is pinned to."""

from launcher.run import affinity
from launcher.run.affinity import threads


def test_threads_are_the_requested_number_or_an_even_share():
    assert [threads(None, *shared, {}) for shared in ((16, 4), (2, 4), (7, 2))] == [4, 1, 3]
    assert threads(5, 16, 4, {"OMP_NUM_THREADS": "8"}) == 5
    # torchrun sets 1 unasked, which makes an optimizer on the CPU ten times slower.
    for variable, expected in (("8", 8), ("1", 4), ("many", 4)):
        assert threads(None, 16, 4, {"OMP_NUM_THREADS": variable}) == expected


CORES = [{0, 8}, {1, 9}, {2, 10}, {3, 11}]


def test_ranks_share_physical_cores():
    assert [affinity.share(CORES, rank, 2) for rank in range(2)] == [{0, 8, 1, 9}, {2, 10, 3, 11}]
    few = [affinity.share([{0, 2}, {1, 3}], rank, 3) for rank in range(3)]
    assert few == [{0, 2}, {1, 3}, {0, 2}]  # one core each
