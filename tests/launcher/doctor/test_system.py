"""Disk, shared memory, limits, memory, swap and clock: each check in a real bad situation."""

import os
import sys

import pytest

from launcher.doctor import system
from tests.control_group import limited
from tests.launcher.given import python

MIB = 2**20

CODE = """
import resource
from pathlib import Path
from launcher.doctor import system
from tests.launcher.given import LAPTOP
for limit, numbers, call in {calls}:
    if limit:
        resource.setrlimit(getattr(resource, limit), numbers)
    found = eval("system." + call)
    print(found.status, found.found, found.fix, sep="|")
"""


def in_child(*calls, prefix=()):
    """Status, what was found, and fix of checks in a process with limits of its own."""
    done = python("-c", CODE.format(calls=calls), prefix=prefix)
    assert done.returncode == 0, done.stderr
    return [line.split("|") for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("options", "status", "text"),
    [
        ("size=1m", "failure", ""),
        ("size=1g", "warning", ""),
        ("size=6g", "ok", ""),
        ("size=6g,nr_inodes=1", "failure", "no inode is free"),
        ("size=6g,ro", "failure", "is not writable"),
    ],
)
def test_a_disk_that_is_small_or_cannot_be_written_to_is_reported(disk, options, status, text):
    found = system.check_disk_space(disk(options))
    assert found.status == status and text in found.found


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no /dev/shm")
@pytest.mark.parametrize(("options", "status"), [("size=64m", "warning"), ("size=1g", "ok")])
def test_small_or_missing_shared_memory_is_reported(disk, options, status):
    folder = disk(options)
    found = system.check_shared_memory(folder)
    assert found.status == status
    assert status == "ok" or "--shm-size" in found.fix
    assert system.check_shared_memory(folder / "none").status == "failure"


def test_low_limits_of_open_files_and_of_locked_memory_beside_infiniband_are_reported(tmp_path):
    (tmp_path / "one" / "mlx5_0").mkdir(parents=True)
    files, locked = "check_open_files()", "check_locked_memory(Path({!r}))"
    enough, low, failed, without, beside = in_child(
        ("RLIMIT_NOFILE", (1024, 4096), files),
        ("RLIMIT_NOFILE", (512, 4096), files),
        ("RLIMIT_NOFILE", (100, 100), files),
        ("RLIMIT_MEMLOCK", (65536, 65536), locked.format(str(tmp_path / "none"))),
        ("RLIMIT_MEMLOCK", (65536, 65536), locked.format(str(tmp_path / "one"))),
    )
    assert (enough[0], enough[2]) == ("ok", "None")
    assert (low[0], low[2]) == ("warning", "ulimit -n 4096")
    assert (failed[0], failed[2]) == ("failure", "ask for a higher limit (nofile)")
    assert without[0] == "ok"
    status, text, fix = beside
    assert status == "warning" and "64.0 KiB" in text and "ulimit -l unlimited" in fix


def control_group(folder, **numbers):
    """The files of a control group, and of its membership."""
    (folder / "membership").write_text("0::/\n")
    for name, number in numbers.items():
        (folder / name.replace("_", ".")).write_text(f"{number}\n")
    return folder, folder / "membership"


def test_a_real_control_group_is_read():
    with limited(1000 * MIB) as prefix:
        [(status, text, fix)] = in_child(("", (), "check_memory(LAPTOP)"), prefix=prefix)
    assert status == "warning" and "1000.0 MiB that the control group allows" in text
    assert "docker run --memory" in fix


def test_a_clock_before_the_newest_file_is_a_failure(tmp_path):
    files = [tmp_path / "old.py", tmp_path / "new.py"]
    for file, time in zip(files, (1e9, 1.7e9), strict=True):
        file.touch()
        os.utime(file, (time, time))
    found = system.check_clock(1.6e9, files)
    assert found.status == "failure" and "2020-09-13 12:26 UTC is before" in found.found
    assert system.check_clock(1.8e9, files).status == "ok"
    assert system.check_clock(1.7e9 - 60, files).status == "ok"
