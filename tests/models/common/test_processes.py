import os
import signal
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool

import psutil
import pytest

from models.language.encoded import in_order
from tests.waiting import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems use one process")


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})


def late_at_first(folder, number):
    """The first batch waits for the second one."""
    if number == 1:
        (folder / "second").touch()
    until(lambda: number != 0 or (folder / "second").exists())
    return folder, number, os.getpid()


def test_results_come_in_order_from_several_processes(tmp_path):
    found = list(in_order(late_at_first, tmp_path, range(20)))
    assert [(tool, number) for tool, number, _ in found] == [(tmp_path, n) for n in range(20)]
    processes = {process for _, _, process in found}
    assert len(processes) == 2 and os.getpid() not in processes


def test_batches_are_not_read_far_ahead(tmp_path):
    read = []
    results = in_order(late_at_first, tmp_path, (read.append(n) or n for n in range(1000)))
    next(results)
    assert len(read) <= 8
    results.close()


def fail(tool, number):
    raise ValueError(f"batch {number}")


def die(tool, number):
    os.kill(os.getpid(), signal.SIGKILL)


def test_errors_and_the_death_of_a_process_are_raised_here():
    with pytest.raises(ValueError, match="batch 0"):
        list(in_order(fail, None, range(3)))
    with pytest.raises(BrokenProcessPool):
        list(in_order(die, None, range(3)))


PARENT = """
import os
from models.language.encoded import in_order

def show(tool, number):
    return os.getpid()

os.sched_getaffinity = lambda pid: {0, 1}
for process in in_order(show, None, range(10**6)):
    print(process, flush=True)
"""


def test_the_processes_end_with_a_parent_that_is_killed():
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    children = {int(parent.stdout.readline()) for _ in range(6)}
    assert all(map(psutil.pid_exists, children))
    parent.kill()
    parent.wait()
    until(lambda: not any(map(psutil.pid_exists, children)))
