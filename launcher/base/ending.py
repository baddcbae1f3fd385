"""The end of a command by a signal, and what is removed or completed then."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from tempfile import mkdtemp
from types import FrameType
from typing import NoReturn

from launcher.base import exit_codes, signals
from launcher.base.signals import Stopped, handling
from training.callbacks.preemption import heeded
from training.storage import StorageError

_LIMIT_S = 3.0
"""Seconds from a signal to the end of the process; a library may hold the main thread longer."""
Cleanup = Callable[[], object]
"""Completes or removes files; a text that it gives says what is left, for the user."""


class EndingSignals:
    """Turns a signal into KeyboardInterrupt or Stopped, and ends the process if it continues.

    It is the handler in the signal table of the process, where `ending_signals` finds it. A part of
    a command that handles signals in its own way replaces it there for that time. Handlers of
    Python run between its lines only, and a library may compute for minutes without any, or catch
    the exception: a thread reads each signal, too.
    """

    def __init__(self) -> None:
        self.left = "nothing was written"
        """What the command leaves behind, for the user; empty: it says so itself."""
        self.cleanups: list[Cleanup] = []
        self.arrived: signal.Signals | None = None
        """The signal that raised an exception."""
        self._process = os.getpid()
        self._is_over = threading.Event()

    def __call__(self, number: int, frame: FrameType | None) -> NoReturn:
        """Raise the exception. A forked worker exits."""
        if os.getpid() != self._process:
            os._exit(_code(number))
        self.arrived = signal.Signals(number)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise Stopped(self.arrived.name)

    def listen(self) -> None:
        """Handle the signals that end a command, except those that the shell ignores."""
        read_end, write_end = os.pipe()
        os.set_blocking(write_end, False)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        os.register_at_fork(after_in_child=signals.forget_pipe)
        for number in heeded():
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self)
        threading.Thread(target=self._read, args=(read_end,), name="ending signals", daemon=True).start()

    def caused(self, error: BaseException) -> bool:
        """Whether a signal caused `error`; a library may turn its exception into another one."""
        if isinstance(error, KeyboardInterrupt):
            self.arrived = signal.SIGINT
        elif isinstance(error, Stopped):
            self.arrived = signal.Signals[error.signal_name]
        return self.arrived is not None

    @property
    def text(self) -> str:
        """`interrupted; nothing was written`."""
        assert self.arrived is not None
        is_key = self.arrived is signal.SIGINT
        what = "interrupted" if is_key else f"stopped by {self.arrived.name}"
        return "; ".join(filter(None, (what, self.left)))

    @property
    def code(self) -> int:
        """The exit code after the signal."""
        assert self.arrived is not None
        return _code(self.arrived)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """End the process at once on a signal: an interrupted import fails in any way."""
        handled = [number for number in heeded() if signal.getsignal(number) is self]
        with handling(handled, lambda number, frame: self._end(signal.Signals(number))):
            yield

    def clean_up(self) -> None:
        """Do what is left of the cleanups, the last first."""
        while self.cleanups:
            cleanup = self.cleanups.pop()
            with suppress(OSError, StorageError):
                left = cleanup()
                self.left = left if isinstance(left, str) else self.left

    def finish(self) -> None:
        """Clean up, and ignore signals from now on: the process exits."""
        for number in heeded():
            signal.signal(number, signal.SIG_IGN)
        self._is_over.set()
        self.clean_up()

    def _read(self, read_end: int) -> None:
        while arrived := os.read(read_end, 64):
            ours = [n for n in heeded() if n in arrived and signal.getsignal(n) is self]
            if ours and not self._is_over.wait(_LIMIT_S):
                self._end(ours[0])

    def _end(self, number: signal.Signals) -> NoReturn:
        self.arrived = number
        kill_children()
        self.clean_up()
        os.write(2, f"{self.text}\n".encode())
        os._exit(self.code)


def ending_signals() -> EndingSignals | None:
    """The EndingSignals that handles Ctrl-C or SIGTERM now; None: another program imported us."""
    handlers = (signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM))
    return next((handler for handler in handlers if isinstance(handler, EndingSignals)), None)


@contextmanager
def imports() -> Iterator[None]:
    """Imports of a command, which a signal ends at once. For those before anything was begun."""
    handler = ending_signals()
    if handler is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    with handler.at_once():
        yield


def leave(text: str) -> None:
    """Say from now on that a signal leaves `text` behind; empty: the command says so itself."""
    if (handler := ending_signals()) is not None:
        handler.left = text


@contextmanager
def at_signal(cleanup: Cleanup) -> Iterator[None]:
    """Call `cleanup` where a signal ends the process within the block."""
    handler = ending_signals()
    cleanups = [] if handler is None else handler.cleanups
    cleanups.append(cleanup)
    try:
        yield
    finally:
        if cleanup in cleanups:  # not where another thread has ended the process
            cleanups.remove(cleanup)


@contextmanager
def with_cleanup(cleanup: Cleanup) -> Iterator[None]:
    """Call `cleanup` at the end of the block, or where a signal ends the process within it."""
    with at_signal(cleanup):
        try:
            yield
        finally:
            with signals.deferred():
                left = cleanup()
            if isinstance(left, str):
                leave(left)


@contextmanager
def temporary_folder(prefix: str, parent: Path | None = None) -> Iterator[Path]:
    """A new folder, removed at the end, also where a signal ends the process. Touches the disk.

    Those of killed processes, which no process locks, are removed from `parent`; so `prefix` must
    be a name that nothing else has.
    """
    folders: list[Path] = []
    locks: list[int] = []

    def remove() -> None:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        while locks:
            os.close(locks.pop())

    for stale in parent.glob(f"{escape(prefix)}*") if parent else ():
        if (lock := _lock(stale)) is not None:
            shutil.rmtree(stale, ignore_errors=True)
            os.close(lock)
    with with_cleanup(remove):  # first: handlers are not seen while their signals are deferred
        with signals.deferred():  # a signal in between would leave the folder behind
            while not folders or not folders[-1].exists():  # removed before it was locked
                folders.append(Path(mkdtemp(prefix=prefix, dir=parent)))
                if (lock := _lock(folders[-1])) is not None:
                    locks.append(lock)
        yield folders[-1]


def _lock(folder: Path) -> int | None:
    """The descriptor of a folder that is locked until it is closed, or its process ends.

    None: another process has the lock, or a network file system has none for folders.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _code(number: int) -> int:
    return exit_codes.INTERRUPTED if number == signal.SIGINT else exit_codes.RUN_AGAIN


def kill_children() -> None:
    """Kill the processes that this one started, and those that they started."""
    import psutil  # it takes a while, and most commands end without it

    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            child.kill()
