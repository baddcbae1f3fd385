"""Limits of containers, from folders in the layout of the kernel."""

import pytest

from gearshift.training.resources import memory

GIB = 2**30


def lay_out(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(f"{content}\n")


@pytest.fixture
def belongs(tmp_path, monkeypatch):
    """Makes this process a member of groups in the folder `fs`, by lines of /proc/self/memory."""
    monkeypatch.setattr(memory, "MOUNT", tmp_path / "fs")
    monkeypatch.setattr(memory, "MEMBERSHIP", tmp_path / "membership")
    return lambda *lines: lay_out(tmp_path, {"membership": "\n".join(lines)})


def test_version_two_counts_memory_that_cannot_be_reclaimed(tmp_path, belongs):
    stat = f"anon {3 * GIB}\nactive_file {GIB}\ninactive_file {2 * GIB}\nslab_reclaimable 0"
    limit = {"memory.max": 8 * GIB, "memory.current": 6 * GIB, "memory.stat": stat}
    lay_out(tmp_path / "fs" / "box", limit)
    belongs("0::/box")
    found = memory.container_memory(tmp_path / "fs")
    assert found == memory.Share(8 * GIB, 3 * GIB)


def test_the_tightest_limit_of_all_parent_groups_counts_or_in_a_container_that_of_the_mount(
    tmp_path, belongs
):
    lay_out(tmp_path / "fs" / "job", {"memory.max": 2 * GIB, "memory.current": GIB})
    lay_out(tmp_path / "fs" / "job" / "step", {"memory.max": "max", "memory.current": GIB})
    lay_out(tmp_path / "fs" / "job" / "step" / "task", {"memory.max": 4 * GIB, "memory.current": 7})
    belongs("0::/job/step/task")
    found = memory.container_memory(tmp_path / "fs")
    assert found == memory.Share(2 * GIB, GIB)
    lay_out(tmp_path / "fs", {"memory.max": 3 * GIB, "memory.current": GIB})
    belongs("0::/docker/0a1b2c")
    found = memory.container_memory(tmp_path / "fs")
    assert found == memory.Share(3 * GIB, GIB)


def test_kills_of_the_own_group_count_before_those_of_the_machine(tmp_path, monkeypatch, belongs):
    vmstat = tmp_path / "vmstat"
    vmstat.write_text("oom_kill 7\noom_kill_disable 9\n")
    lay_out(tmp_path / "fs" / "job", {"memory.events": "oom 5\noom_kill 4"})
    lay_out(tmp_path / "fs" / "job" / "step", {"memory.events": "max 3\noom_kill 2"})
    lay_out(tmp_path / "fs" / "memory" / "old", {"memory.oom_control": "under_oom 0\noom_kill 1"})

    monkeypatch.setattr(memory, "VMSTAT", vmstat)

    def kills(*lines):
        belongs(*lines)
        return memory.oom_kills()

    assert kills("0::/job/step") == 2
    assert kills("4:memory:/old", "0::/") == 1
    assert kills("0::/elsewhere") == 7
    vmstat.unlink()
    assert kills("0::/elsewhere") is None


def test_swap_has_a_limit_in_version_two_only_and_pages_of_files_are_none_of_it(tmp_path, belongs):
    group = tmp_path / "fs" / "box"
    belongs("0::/box")
    lay_out(
        group, {"memory.swap.max": "max", "memory.swap.current": 5, "memory.stat": "active_file 5"}
    )
    assert memory.container_swap() is None
    lay_out(group, {"memory.swap.max": 8})
    assert memory.container_swap() == memory.Share(8, 5)
