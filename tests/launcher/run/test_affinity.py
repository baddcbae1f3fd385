"""The threads of a rank, and the cores it is pinned to."""

from types import SimpleNamespace

from gearshift.launcher.run import affinity

SHARED = SimpleNamespace(threads=None, max_restarts=0)


def threads(cores, ranks, environ, engine=SHARED, is_continual=False):
    return affinity.threads(engine, cores, ranks, environ, is_continual)


def test_threads_are_the_requested_number_or_an_even_share():
    assert [threads(*shared, {}) for shared in ((16, 4), (2, 4), (7, 2))] == [4, 1, 3]
    assert threads(16, 4, {"OMP_NUM_THREADS": "8"}, SimpleNamespace(threads=5)) == 5
    # torchrun sets 1 unasked, which makes an optimizer on the CPU ten times slower.
    for variable, expected in (("8", 8), ("1", 4), ("many", 4)):
        assert threads(16, 4, {"OMP_NUM_THREADS": variable}) == expected


def test_a_run_in_the_process_of_the_launcher_keeps_the_default_of_torch():
    assert threads(16, 1, {}) is None
    assert threads(16, 1, {}, is_continual=True) == 16


def test_ranks_share_physical_cores():
    cores = [0, 8, 1, 9, 2, 10, 3, 11]
    assert [affinity.share(cores, rank, 2) for rank in range(2)] == [[0, 8, 1, 9], [2, 10, 3, 11]]
    assert [affinity.share([0, 1], rank, 3) for rank in range(3)] == [[0], [1], [0]]
