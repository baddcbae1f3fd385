"""The processes of a cluster by name."""

import ctypes
import signal
import subprocess
import time
from contextlib import suppress

import psutil


class Processes:
    """Starts, finds and stops the processes of a cluster, whose output goes to the folder `logs`."""

    def __init__(self, logs):
        self.logs = logs
        self._known = {}

    def start(self, name, command):
        """Start `command` in a session of its own; gives its process id."""
        pipes = {"stdin": subprocess.DEVNULL, "stderr": subprocess.STDOUT}
        with open(self.logs / f"{name}.out", "ab") as log:
            self._known[name] = psutil.Popen(
                command, stdout=log, start_new_session=True, preexec_fn=_die_too, **pipes
            )
        return self._known[name].pid

    def remember(self, name, pid):
        """Know a process that another one has started."""
        self._known[name] = psutil.Process(pid)

    def pid(self, name):
        """The process of that name, if it still runs."""
        process = self._known.get(name)
        with suppress(psutil.NoSuchProcess):
            if process and process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                return process.pid
        return None

    def stop(self, name, how=signal.SIGTERM):
        """Signal it with `how`, after five seconds with SIGKILL. Does nothing if it has ended."""
        process = self._known.pop(name, None)
        for number in (how, signal.SIGKILL) if process else ():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
            if psutil.wait_procs([process], timeout=5)[0]:
                break


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
