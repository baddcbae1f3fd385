"""A function in a child process: it may import, allocate or be killed without an effect here."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any


def call(function: Callable[[], Any], timeout_s: float) -> Any:
    """What `function` returns, as JSON, from a fork of this process; None if it does not.

    The child is killed after `timeout_s`, and is the first that the kernel kills when memory runs
    out. It shows nothing. To be called by a process with one thread. Where processes cannot fork,
    the function is called here.
    """
    if not hasattr(os, "fork") or "torch" in sys.modules:
        return function()
    reading, writing = os.pipe()
    if not (child := os.fork()):
        os.close(reading)
        _run(function, writing)
    os.close(writing)
    try:
        return _read(reading, timeout_s)
    finally:
        os.close(reading)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _run(function: Callable[[], Any], writing: int) -> None:
    """Write the result, and never return."""
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, signal.SIG_DFL)
        with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
        silent = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(silent, stream)
        content = json.dumps(function()).encode()
        with open(writing, "wb") as file:
            file.write(content)
    finally:  # whatever happens: without a result, the parent reads an empty text
        os._exit(0)


def _read(reading: int, timeout_s: float) -> Any:
    end, content = time.monotonic() + timeout_s, b""
    while (left := end - time.monotonic()) > 0:
        if not select.select([reading], [], [], left)[0]:
            return None
        if not (piece := os.read(reading, 1 << 16)):
            return json.loads(content) if content else None
        content += piece
    return None
