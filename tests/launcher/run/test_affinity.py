"""The threads of a rank, and the cores it is pinned to."""

import pytest

from launcher.run import affinity
from launcher.run.affinity import threads


def test_threads_are_the_requested_number_or_an_even_share():
    assert [threads(None, *shared, {}) for shared in ((16, 4), (2, 4), (7, 2))] == [4, 1, 3]
    assert threads(5, 16, 4, {"OMP_NUM_THREADS": "8"}) == 5
    # torchrun sets 1 unasked, which makes an optimizer on the CPU ten times slower.
    for variable, expected in (("8", 8), ("1", 4), ("many", 4)):
        assert threads(None, 16, 4, {"OMP_NUM_THREADS": variable}) == expected


def test_waiting_threads_sleep_soon_unless_the_user_set_how_they_wait():
    environ = {}
    affinity.limit_spinning(environ)
    assert environ == {"GOMP_SPINCOUNT": "1000", "OPENBLAS_THREAD_TIMEOUT": "4"}
    for variables in ({"GOMP_SPINCOUNT": "5"}, {"OMP_WAIT_POLICY": "active"}):
        variables["OPENBLAS_THREAD_TIMEOUT"] = "26"
        environ = dict(variables)
        affinity.limit_spinning(environ)
        assert environ == variables


CORES = [{0, 8}, {1, 9}, {2, 10}, {3, 11}, {4, 12}, {5, 13}, {6, 14}, {7, 15}]
LEFT, RIGHT = {0, 1, 2, 3, 8, 9, 10, 11}, {4, 5, 6, 7, 12, 13, 14, 15}


@pytest.mark.parametrize(
    ("near", "ranks", "expected"),
    [
        ([], 2, [LEFT, RIGHT]),
        ([], 4, [{0, 8, 1, 9}, {2, 10, 3, 11}, {4, 12, 5, 13}, {6, 14, 7, 15}]),
        ([RIGHT, LEFT], 2, [RIGHT, LEFT]),
        ([RIGHT, RIGHT], 2, [{4, 12, 5, 13}, {6, 14, 7, 15}]),
        ([LEFT, RIGHT, LEFT], 3, [{0, 8, 1, 9}, RIGHT, {2, 10, 3, 11}]),
        ([RIGHT], 2, [LEFT, RIGHT]),
        ([set(), set()], 2, [LEFT, RIGHT]),
        ([{99}, {99}], 2, [LEFT, RIGHT]),
    ],
)
def test_ranks_share_physical_cores_near_their_gpus(near, ranks, expected):
    assert [affinity.share(CORES, near, rank, ranks) for rank in range(ranks)] == expected
    few = [affinity.share([{0, 2}, {1, 3}], [], rank, 3) for rank in range(3)]
    assert few == [{0, 2}, {1, 3}, {0, 2}]  # one core each


def test_the_processors_near_each_visible_gpu_are_those_of_its_bus(tmp_path, monkeypatch):
    for address, processors in (("0000:17:00.0", "0-3,8-11"), ("0000:ca:00.0", "4-7,12-15")):
        (tmp_path / "gpus" / address).mkdir(parents=True)
        bus = tmp_path / "sys/bus/pci/devices" / address
        bus.mkdir(parents=True)
        (bus / "local_cpulist").write_text(f"{processors}\n")
    monkeypatch.setattr(affinity, "_DRIVER", tmp_path / "gpus")
    monkeypatch.setattr(affinity, "_SYS", tmp_path / "sys")
    near = affinity._near_gpus
    assert near({}) == [LEFT, RIGHT]
    assert near({"CUDA_VISIBLE_DEVICES": "1"}) == [RIGHT]
    assert near({"CUDA_VISIBLE_DEVICES": "GPU-5e"}) == near({"CUDA_VISIBLE_DEVICES": "7"}) == []
