"""CPU use of the cores available to this process."""

from tests.training.resources.test_cgroup import lay_out, membership
from training.resources import cpu
from training.resources.cpu import CpuUse


def use(*counts):
    left = list(counts)
    found = CpuUse(lambda: left.pop(0))
    return [found.percent() for _ in counts]


def test_cpu_use_is_the_share_since_the_previous_reading():
    found = use((0.0, 5.0, 2.0), (10.0, 10.0, 2.0), (12.0, 14.0, 2.0))
    assert found == [None, 25.0, 100.0]
    # A second reading at once repeats the value.
    assert use((0.0, 0.0, 1.0), (1.0, 0.5, 1.0), (1.1, 0.6, 1.0)) == [None, 50.0, 50.0]


def test_a_quota_of_version_two_replaces_the_cores_unless_it_is_of_all(monkeypatch, tmp_path):
    monkeypatch.setattr(cpu, "_allowed", lambda: list(range(8)))
    stat = "usage_usec 2500000\nuser_usec 2000000"
    lay_out(tmp_path / "fs" / "box", {"cpu.max": "150000 100000", "cpu.stat": stat})
    lay_out(tmp_path / "fs", {"cpu.max": "max 100000", "cpu.stat": stat})
    found = cpu.of_quota(tmp_path / "fs", membership(tmp_path, "0::/box"))
    assert found is not None and found[1:] == (2.5, 1.5)

    for quota in ("max 100000", "1600000 100000"):
        lay_out(tmp_path / "fs", {"cpu.max": quota, "cpu.stat": "usage_usec 1"})
        assert cpu.of_quota(tmp_path / "fs", membership(tmp_path, "0::/")) is None, quota
