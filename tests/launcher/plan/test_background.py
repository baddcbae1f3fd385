"""A child of low priority: what it sends, how it ends, and what it leaves alone."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from launcher.plan import background
from launcher.plan.background import Background

pytestmark = pytest.mark.skipif(
    not background.is_possible(), reason="Linux ends it with its parent"
)
LONG_S = 60.0


def files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_messages_arrive_and_the_child_is_reaped_at_once():
    def work(send):
        send("first", {"bytes": 3})
        send("second", [1, 2])

    child = Background(work)
    assert child.message("second", LONG_S) == [1, 2]
    assert child.message("first") == {"bytes": 3}
    assert child.message("third", LONG_S) is None
    child.close()
    with suppress(psutil.NoSuchProcess):  # killed, but a busy machine may take its time
        psutil.Process(child.process).wait(LONG_S)


def test_a_child_ends_with_its_cpu_time():
    def work(send):
        background.limit_cpu(0.0)
        while time.process_time() < LONG_S:
            pass
        send("end", None)

    child = Background(work)
    began = time.monotonic()
    assert child.message("begin", LONG_S) is None
    assert time.monotonic() - began < LONG_S / 2
    child.close()


@pytest.mark.parametrize("ends", ["raises", "is killed", "exits"])
def test_the_parent_does_not_wait_for_a_child_that_has_failed(ends):
    def work(send):
        if ends == "raises":
            raise MemoryError
        if ends == "exits":
            sys.exit(3)
        os.kill(os.getpid(), signal.SIGKILL)

    child = Background(work)
    began = time.monotonic()
    assert child.message("plan", LONG_S) is None
    assert time.monotonic() - began < LONG_S / 2
    child.close()


def test_close_ends_the_child_and_removes_its_files(temporary):
    def work(send):
        send("file", tempfile.mkstemp()[1])
        time.sleep(600)

    before = files()
    child = Background(work)
    assert Path(child.message("file", LONG_S)).parent.parent == temporary
    child.close()
    with suppress(psutil.NoSuchProcess):  # killed, but a busy machine may take its time
        psutil.Process(child.process).wait(LONG_S)
    assert list(temporary.iterdir()) == []
    assert files() == before


def test_signals_to_the_group_do_not_end_the_child(tmp_path):
    def work(send):
        send("began", True)
        while not (tmp_path / "signalled").exists():
            time.sleep(0.01)
        send("still here", True)

    child = Background(work)
    assert child.message("began", LONG_S)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        os.kill(child.process, number)
    (tmp_path / "signalled").touch()
    assert child.message("still here", LONG_S)
    child.close()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()


def test_the_child_has_the_lowest_priority_and_no_files_of_its_parent(tmp_path):
    def work(send):
        open_files = [os.readlink(f"/proc/self/fd/{n}") for n in range(3)]
        others = [n for n in os.listdir("/proc/self/fd") if int(n) > 2]
        score = Path("/proc/self/oom_score_adj").read_text().strip()
        send("facts", [os.getpriority(os.PRIO_PROCESS, 0), score, open_files, len(others)])

    with (tmp_path / "open").open("w"):
        child = Background(work)
    nice, score, standard, others = child.message("facts", LONG_S)
    child.close()
    assert (nice, score, standard) == (19, "1000", ["/dev/null"] * 3)
    assert others == 2  # the pipe, and the folder that is listed


def test_an_allocation_beyond_the_free_memory_fails_in_the_child():
    def work(send):
        try:
            bytearray(psutil.virtual_memory().available * 3 // 4)
        except MemoryError:
            send("refused", True)

    child = Background(work)
    assert child.message("refused", LONG_S)
    child.close()


def test_the_child_ends_with_its_parent():
    script = """
import os, time
from launcher.plan.background import Background

def work(send):
    send("began", os.getpid())
    time.sleep(600)

print(Background(work).message("began", 60), flush=True)
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, timeout=120)
    assert done.returncode == -signal.SIGKILL
    child = int(done.stdout)
    end = time.monotonic() + LONG_S
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end, "the child outlives its parent"
        time.sleep(0.05)
