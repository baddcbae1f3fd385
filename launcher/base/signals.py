"""Signal handlers: deferred, blocked, and replaced for a while."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from training.callbacks.preemption import heeded


class Stopped(BaseException):
    """A signal arrived before anything was saved."""

    def __init__(self, signal_name: str) -> None:
        super().__init__(signal_name)
        self.signal_name = signal_name


@contextmanager
def handling(numbers: Iterable[int], handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Handle the signals `numbers` with `handler`, and restore the earlier handlers at the end.

    For the main thread: only it may set handlers.
    """
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


@contextmanager
def deferred() -> Iterator[None]:
    """Defer the signals that end a command. Does nothing outside of the main thread.

    Code that catches all exceptions, such as imports of large libraries, could swallow the
    exception of a handler.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    with handling(heeded(), lambda number, _: arrived.append(number)):
        yield
    for number in arrived:
        signal.raise_signal(number)


@contextmanager
def interrupt_blocked() -> Iterator[None]:
    """Processes started within get a Ctrl-C only when they call `unblock_interrupt`."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def unblock_interrupt() -> None:
    """Raise KeyboardInterrupt for a Ctrl-C since the start of this process, and for later ones."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def forget_pipe() -> None:
    """In a forked process: its signals are not those of the process that reads the pipe."""
    if threading.current_thread() is threading.main_thread():
        signal.set_wakeup_fd(-1)
