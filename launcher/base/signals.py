"""Signal handlers: deferred, blocked, and replaced for a while."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

ENDING = tuple(name for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP") if hasattr(signal, name))
"""The signals that end a run."""


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


def numbers(names: Iterable[str]) -> list[signal.Signals]:
    """The signals of these names that this system has, without a SIGHUP that nohup ignores."""
    signals = [signal.Signals[name] for name in names if hasattr(signal, name)]
    ignored = [n for n in signals if n.name == "SIGHUP" and signal.getsignal(n) is signal.SIG_IGN]
    return [number for number in signals if number not in ignored]


@contextmanager
def deferred(names: Iterable[str]) -> Iterator[None]:
    """Defer the signals `names` until the end. Does nothing outside of the main thread.

    Code that catches all exceptions, such as imports of large libraries, could swallow the
    exception of a handler.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    with handling(
        (getattr(signal, name) for name in names), lambda number, _: arrived.append(number)
    ):
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
