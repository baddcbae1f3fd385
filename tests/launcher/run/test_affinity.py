"""The cores that a rank is pinned to."""

from gearshift.launcher.run import affinity


def test_ranks_share_physical_cores():
    cores = [0, 8, 1, 9, 2, 10, 3, 11]
    assert [affinity.share(cores, rank, 2) for rank in range(2)] == [[0, 8, 1, 9], [2, 10, 3, 11]]
    assert [affinity.share([0, 1], rank, 3) for rank in range(3)] == [[0], [1], [0]]
