"""Limits of containers, from folders in the layout of the kernel."""

from training.resources import cgroup

GIB = 2**30


def lay_out(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(f"{content}\n")


def membership(tmp_path, *lines):
    file = tmp_path / "membership"
    file.write_text("".join(f"{line}\n" for line in lines))
    return file


def test_version_two_counts_memory_that_cannot_be_reclaimed(tmp_path):
    stat = f"anon {3 * GIB}\nactive_file {GIB}\ninactive_file {2 * GIB}\nslab_reclaimable 0"
    limit = {"memory.max": 8 * GIB, "memory.current": 6 * GIB, "memory.stat": stat}
    lay_out(tmp_path / "fs" / "box", limit)
    found = cgroup.memory(tmp_path / "fs", membership(tmp_path, "0::/box"))
    assert found == cgroup.Share(8 * GIB, 3 * GIB)
    assert found.percent == 37.5


def test_the_tightest_limit_of_all_parent_groups_counts_or_in_a_container_that_of_the_mount(tmp_path):
    lay_out(tmp_path / "fs" / "job", {"memory.max": 2 * GIB, "memory.current": GIB})
    lay_out(tmp_path / "fs" / "job" / "step", {"memory.max": "max", "memory.current": GIB})
    lay_out(tmp_path / "fs" / "job" / "step" / "task", {"memory.max": 4 * GIB, "memory.current": 7})
    found = cgroup.memory(tmp_path / "fs", membership(tmp_path, "0::/job/step/task"))
    assert found == cgroup.Share(2 * GIB, GIB)
    lay_out(tmp_path / "fs", {"memory.max": 3 * GIB, "memory.current": GIB})
    found = cgroup.memory(tmp_path / "fs", membership(tmp_path, "0::/docker/0a1b2c"))
    assert found == cgroup.Share(3 * GIB, GIB)


def test_kills_of_the_own_group_count_before_those_of_the_machine(tmp_path):
    vmstat = tmp_path / "vmstat"
    vmstat.write_text("oom_kill 7\noom_kill_disable 9\n")
    lay_out(tmp_path / "fs" / "job", {"memory.events": "oom 5\noom_kill 4"})
    lay_out(tmp_path / "fs" / "job" / "step", {"memory.events": "max 3\noom_kill 2"})
    lay_out(tmp_path / "fs" / "memory" / "old", {"memory.oom_control": "under_oom 0\noom_kill 1"})

    def kills(*lines):
        return cgroup.oom_kills(tmp_path / "fs", membership(tmp_path, *lines), vmstat)

    assert kills("0::/job/step") == 2
    assert kills("4:memory:/old", "0::/") == 1
    assert kills("0::/elsewhere") == 7
    vmstat.unlink()
    assert kills("0::/elsewhere") is None
