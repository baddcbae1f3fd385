"""Disk, shared memory, limits, memory, swap and clock: each check in a real bad situation."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from launcher.doctor import system
from tests.control_group import limited
from tests.launcher.given import LAPTOP

MIB = 2**20
ROOT = Path(__file__).parents[3]
CODE = """
import resource
from pathlib import Path
from launcher.doctor import system
from tests.launcher.given import LAPTOP
{before}
found = system.{call}
print(found.status, found.found, found.fix, sep="|")
"""


def in_child(call: str, before: str = "", prefix=()) -> list[str]:
    """Status, what was found, and fix of a check in a process of its own."""
    code = CODE.format(before=before, call=call)
    done = subprocess.run(
        [*prefix, sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().split("|")


@contextmanager
def tmpfs(folder, options):
    """A file system in memory; skips the test where it cannot be mounted."""
    mount = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
    except OSError as error:
        pytest.skip(f"no file system can be mounted: {error}")
    if done.returncode:
        pytest.skip(f"no file system can be mounted: {done.stderr}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize(
    ("options", "status"),
    [("size=1m", "failure"), ("size=1g", "warning"), ("size=6g", "ok")],
)
def test_a_small_disk_is_reported(tmp_path, options, status):
    with tmpfs(tmp_path, options):
        assert system.check_disk_space(tmp_path).status == status


def test_a_disk_without_inodes_is_a_failure(tmp_path):
    with tmpfs(tmp_path, "size=6g,nr_inodes=1"):
        found = system.check_disk_space(tmp_path)
    assert found.status == "failure" and "no inode is free" in found.found


def test_a_folder_that_cannot_be_written_to_is_a_failure(tmp_path):
    with tmpfs(tmp_path, "size=6g,ro"):
        found = system.check_disk_space(tmp_path)
    assert found.status == "failure" and "is not writable" in found.found


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no /dev/shm")
@pytest.mark.parametrize(("options", "status"), [("size=64m", "warning"), ("size=1g", "ok")])
def test_small_shared_memory_is_a_warning(tmp_path, options, status):
    with tmpfs(tmp_path, options):
        found = system.check_shared_memory(tmp_path)
    assert found.status == status
    assert status == "ok" or "--shm-size" in found.fix


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no /dev/shm")
def test_missing_shared_memory_is_a_failure(tmp_path):
    assert system.check_shared_memory(tmp_path / "none").status == "failure"


@pytest.mark.parametrize(
    ("limits", "status", "fix"),
    [
        ("(100, 100)", "failure", "ask for a higher limit (nofile)"),
        ("(512, 4096)", "warning", "ulimit -n 4096"),
        ("(1024, 4096)", "ok", "None"),
    ],
)
def test_a_low_limit_of_open_files_is_reported(limits, status, fix):
    before = f"resource.setrlimit(resource.RLIMIT_NOFILE, {limits})"
    found = in_child("check_open_files()", before)
    assert (found[0], found[2]) == (status, fix)


def test_locked_memory_matters_beside_infiniband(tmp_path):
    before = "resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))"
    call = f"check_locked_memory(Path({str(tmp_path)!r}))"
    assert in_child(call, before)[0] == "ok"
    (tmp_path / "mlx5_0").mkdir()
    status, text, fix = in_child(call, before)
    assert status == "warning" and "64.0 KiB" in text and "ulimit -l unlimited" in fix


def control_group(folder, **numbers):
    """The files of a control group, and of its membership."""
    (folder / "membership").write_text("0::/\n")
    for name, number in numbers.items():
        (folder / name.replace("_", ".")).write_text(f"{number}\n")
    return folder, folder / "membership"


@pytest.mark.parametrize(("limit", "status"), [(500 * MIB, "failure"), (1024 * MIB, "warning")])
def test_a_low_limit_of_a_control_group_is_reported(tmp_path, limit, status):
    group = control_group(tmp_path, memory_max=limit, memory_current=0)
    found = system.check_memory(LAPTOP, *group)
    assert found.status == status
    assert "that the control group allows" in found.found and "sbatch --mem" in found.fix


def test_a_real_control_group_is_read():
    with limited(1000 * MIB) as prefix:
        status, text, fix = in_child("check_memory(LAPTOP)", prefix=prefix)
    assert status == "warning" and "1000.0 MiB that the control group allows" in text
    assert "docker run --memory" in fix


def test_swap_in_use_is_a_warning(tmp_path):
    files = {"memory_swap_max": 100 * MIB, "memory_max": 900 * MIB, "memory_current": 0}
    group = control_group(tmp_path, memory_swap_current=80 * MIB, **files)
    found = system.check_swap(*group)
    assert found.status == "warning" and found.found.startswith("80.0 MiB of ")
    (tmp_path / "memory.swap.current").write_text("0\n")
    assert system.check_swap(*group).status == "ok"


def test_a_clock_before_the_newest_file_is_a_failure(tmp_path):
    files = [tmp_path / "old.py", tmp_path / "new.py"]
    for file, time in zip(files, (1e9, 1.7e9), strict=True):
        file.touch()
        os.utime(file, (time, time))
    found = system.check_clock(1.6e9, files)
    assert found.status == "failure" and "2020-09-13 12:26 UTC is before" in found.found
    assert system.check_clock(1.8e9, files).status == "ok"
    assert system.check_clock(1.7e9 - 60, files).status == "ok"
