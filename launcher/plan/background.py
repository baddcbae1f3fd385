"""A child process of the lowest priority that computes beside this one, and sends what it finds."""

from __future__ import annotations

import ctypes
import faulthandler
import json
import math
import os
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import psutil

from training.resources import cgroup

Send = Callable[[str, Any], None]
"""Sends a message: its name, and JSON."""
_PR_SET_PDEATHSIG = 1
_LAST_NICE = 19
_FIRST_TO_KILL = "1000"
_MOST_OF_FREE = 0.5
"""The share of the free main memory that a fork may take."""
_END_WAIT_S = 1.0


def is_possible() -> bool:
    """Whether this system can end a child with its parent, as Linux does."""
    return sys.platform == "linux" and hasattr(os, "fork")


class Background:
    """`work` in a fork of this process. Whatever happens to the fork, this process continues.

    The fork ends with this process, takes half of the free memory at most, is the first that the
    kernel kills for memory, and has no files, no terminal and no signals of this process. Its
    temporary files are removed.
    """

    def __init__(self, work: Callable[[Send], None]) -> None:
        """Raises OSError if there is no memory or no disk for a fork."""
        self._folder = tempfile.mkdtemp(prefix="gearshift-plan-")
        read_end, write_end = os.pipe()
        # No handler of this process runs in the fork, which keeps all signals blocked.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        parent = os.getpid()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # threads: see `_work`
                self.process = os.fork()
            if not self.process:
                _work(work, parent, write_end, self._folder)
        except OSError:
            os.close(read_end)
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            os.close(write_end)
        self._messages: dict[str, Any] = {}
        self._changed = threading.Condition()
        self._is_over = False
        self._reader = threading.Thread(
            target=self._receive, args=(read_end,), name="plan messages", daemon=True
        )
        self._reader.start()

    def message(self, name: str, wait_s: float = 0.0) -> Any:
        """The message `name`, for which to wait so many seconds; None: it did not come."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_over or name in self._messages, wait_s)
            return self._messages.get(name)

    def close(self) -> None:
        """End the fork, if it has not ended, and remove its files."""
        with self._changed:
            if not self._is_over:
                with suppress(ProcessLookupError):
                    os.kill(self.process, signal.SIGKILL)
        self._reader.join(_END_WAIT_S)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _receive(self, read_end: int) -> None:
        with os.fdopen(read_end, "rb") as lines:
            for line in lines:
                with suppress(ValueError), self._changed:  # a killed fork leaves half a line
                    name, content = json.loads(line)
                    self._messages[name] = content
                    self._changed.notify_all()
        with self._changed:
            self._is_over = True  # before another process gets its number
            self._changed.notify_all()
            with suppress(ChildProcessError):
                os.waitpid(self.process, 0)


def limit_cpu(seconds: float | None) -> None:
    """The kernel ends this fork after so many more seconds of CPU time; None: without a limit."""
    most = resource.RLIM_INFINITY
    if seconds is not None:
        most = math.ceil(time.process_time() + seconds)
        signal.signal(signal.SIGXCPU, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGXCPU])
    resource.setrlimit(resource.RLIMIT_CPU, (most, resource.RLIM_INFINITY))


def _work(work: Callable[[Send], None], parent: int, write_end: int, folder: str) -> NoReturn:
    """What the fork does. Only this thread exists in it."""
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == parent:
            os.setpriority(os.PRIO_PROCESS, 0, _LAST_NICE)
            with suppress(OSError):
                Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_KILL)
            faulthandler.disable()
            _leave_files(write_end)
            _limit_memory()
            tempfile.tempdir = folder

            def send(name: str, content: Any) -> None:
                os.write(write_end, json.dumps([name, content]).encode() + b"\n")

            work(send)
    finally:
        os._exit(0)


def _leave_files(kept: int) -> None:
    """Close all files but `kept`: a position in a file would be shared with the parent."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    for number in map(int, os.listdir("/proc/self/fd")):
        if number > 2 and number != kept:
            with suppress(OSError):
                os.close(number)


def _limit_memory() -> None:
    """Let allocations fail before memory runs out, and write no core file then."""
    free = psutil.virtual_memory().available
    if (share := cgroup.memory()) is not None:
        free = min(free, max(share.limit - share.used, 0))
    most = psutil.Process().memory_info().data + round(_MOST_OF_FREE * free)
    resource.setrlimit(resource.RLIMIT_DATA, (most, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
