"""The processes of a cluster by name, recorded in files so that any process can stop them."""

import ctypes
import os
import signal
import subprocess
import time
from pathlib import Path

import psutil


class Processes:
    """Starts, finds and stops the processes of the cluster in `folder`."""

    def __init__(self, folder):
        self.pids = folder / "pids"
        self.logs = folder / "log"
        self._children = []

    def start(self, name, command):
        """Start `command` in a session of its own and record it; gives its process id."""
        with open(self.logs / f"{name}.out", "ab") as log:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_too,
            )
        self._children.append(child)  # to be reaped, if it ends before this process
        self.remember(name, child.pid)
        return child.pid

    def remember(self, name, pid):
        """Record process id and start time: ids are reused, pairs are not."""
        (self.pids / name).write_text(f"{pid} {_started(pid)}\n", encoding="utf-8")

    def pid(self, name):
        """The process of that name, if it still runs."""
        try:
            pid, started = (self.pids / name).read_text(encoding="utf-8").split()
        except FileNotFoundError:
            return None
        return int(pid) if _started(int(pid)) == started else None

    def stop(self, name, how=signal.SIGTERM):
        """Signal it with `how`, after five seconds with SIGKILL. Does nothing if it has ended."""
        for signum in (how, signal.SIGKILL):
            pid = self.pid(name)
            if pid is None:
                break
            os.kill(pid, signum)
            if wait_until(lambda: self.pid(name) is None, seconds=5):
                break
        (self.pids / name).unlink(missing_ok=True)
        self._children = [child for child in self._children if child.poll() is None]


def _die_too():
    """Let the kernel kill this process when the tests end without stopping it."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def only_child(pid):
    """The process started by `pid`, if there is one already."""
    children = psutil.Process(pid).children()
    return children[0].pid if children else None


def wait_until(condition, seconds):
    """Poll `condition` until it is true; False after the time limit."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def _started(pid):
    """Start time of a process in ticks since boot; None if it has ended, reaped or not."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else fields[19]
