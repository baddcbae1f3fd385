"""Work on data in several processes, in order."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, TypeVar

_Batch = TypeVar("_Batch")
_Result = TypeVar("_Result")
_AHEAD = 4
"""Batches for each process that are read before they are worked on."""
_tool: Any = None
"""In a process: what it works with."""


def in_order(
    work: Callable[[Any, _Batch], _Result], tool: Any, batches: Iterable[_Batch]
) -> Iterator[_Result]:
    """`work(tool, batch)` of each batch, in order, on all cores of this process.

    `batches` are read in this process, and not far ahead. Raises what `work` raises, and
    BrokenProcessPool if a process was killed.
    """
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1
    if cores == 1:  # elsewhere a fork is not safe, and a script would need a `__main__` guard
        yield from (work(tool, batch) for batch in batches)
        return
    # The threads of the tokenizers library do not exist in a forked process.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    context, start = get_context("fork"), (tool, os.getpid())
    pool = ProcessPoolExecutor(cores, context, initializer=_start, initargs=start)
    pending: deque[Future[_Result]] = deque()
    try:
        for batch in batches:
            pending.append(pool.submit(_work, work, batch))
            if len(pending) == _AHEAD * cores:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _start(tool: Any, parent: int) -> None:
    global _tool
    _tool = tool
    # A signal for all processes ends the parent, which ends this one.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _work(work: Callable[[Any, _Batch], _Result], batch: _Batch) -> _Result:
    return work(_tool, batch)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)
