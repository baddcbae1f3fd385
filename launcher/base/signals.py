"""Signals of a command: its end by one, what is removed or completed then, and their deferral."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp
from types import FrameType
from typing import Any, NoReturn

import psutil

from gearshift.launcher.base import exit_codes
from gearshift.training.callbacks.preemption import SignalReader, heeded

_LIMIT_S = 3.0
"""Seconds from a signal to the end of the process; a library may hold the main thread longer."""
Report = Callable[[BaseException], object]
"""Tells a supervisor of the exception of a signal."""


class Stopped(BaseException):
    """A signal arrived before anything was saved."""

    def __init__(self, signal_name: str) -> None:
        super().__init__(signal_name)
        self.signal_name = signal_name


class Signals:
    """What this process does at a signal that ends it, in three phases.

    command     KeyboardInterrupt or Stopped is raised, and the process ends if it continues
    job starts  of a run in a job of Slurm: the process ends at once, and publishes that for the job
                script; a Ctrl-C is as above, batch jobs get none
    job trains  nothing: the training saves, or has ended; `end_start`

    It is the handler in the signal table of the process, where `installed` finds it. A part of a
    command that handles signals in its own way replaces it there for that time. Handlers of Python
    run between its lines only, and a library may compute for minutes without any, or catch the
    exception: a thread reads each signal, too.
    """

    def __init__(self, left: str = "nothing was written") -> None:
        self.left = left
        """What the command leaves behind, for the user; empty: it says so itself."""
        self.cleanups: list[Callable[[], object]] = []
        self.arrived: signal.Signals | None = None
        """The signal that raised an exception."""
        self.report: Report | None = None
        self.ends_at_once = False
        """No exception is raised: nothing would catch it, or an import would make it another one."""
        self.defers = False
        self.is_answered = threading.Event()
        """An exception of a signal was caught: the program ends by itself."""
        self._in_job: Callable[[signal.Signals], None] | None = None
        """Of a run in a job: what a signal does, in the thread that reads it."""
        self._lock = threading.Lock()
        self._process = os.getpid()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Raise the exception. A forked worker exits."""
        if os.getpid() != self._process:
            os._exit(_code(number))
        if self.in_job and number != signal.SIGINT:
            return
        self.arrived = signal.Signals(number)
        if self.ends_at_once:
            self.end(self.arrived)
        raise exception(self.arrived)

    def listen(self) -> SignalReader:
        """Handle the signals that end a command, except those that the shell ignores."""
        reader = SignalReader(self._take)
        for number in heeded():
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self)
        return reader

    def start_job(self, publish: Callable[[str], bool]) -> None:
        """A run in a job starts; signals blocked since the start of the process come now.

        `publish` tells the job script that its job is to run again; whether this process prints that.
        """

        def stop(number: signal.Signals) -> None:
            text = f"stopped by {number.name} before anything was saved; run again"
            if publish(text):
                os.write(2, f"{text}\n".encode())
            os._exit(exit_codes.RUN_AGAIN)

        self._in_job = stop
        numbers = {*heeded()} - {signal.SIGINT}
        for number in numbers:
            signal.signal(number, self)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)

    @property
    def in_job(self) -> bool:
        """Whether a run in a job starts, or has started, in this process."""
        return self._in_job is not None

    def end_start(self, code: int | None = None) -> None:
        """The start of a run in a job is over: the training handles signals, or has ended.

        With a `code`, a signal ends this process at once with that code: it only waits for others
        to report first.
        """
        with self._lock:
            if self.in_job:
                self._in_job = lambda number: None if code is None else os._exit(code)

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

    def clean_up(self) -> None:
        """Do what is left of the cleanups, the last first."""
        while self.cleanups:
            cleanup = self.cleanups.pop()
            with suppress(OSError):
                cleanup()

    def finish(self) -> None:
        """Clean up, and ignore signals from now on: the process exits."""
        for number in heeded():
            signal.signal(number, signal.SIG_IGN)
        self.is_answered.set()
        self.clean_up()

    def _take(self, number: signal.Signals) -> None:
        if self._in_job is None:
            is_handled = self.defers or signal.getsignal(number) is self
            if is_handled and not self.is_answered.wait(_LIMIT_S):
                self.end(number)
        elif number is not signal.SIGINT:
            with self._lock:
                self._in_job(number)

    def end(self, number: signal.Signals) -> NoReturn:
        """End the process at once, with its children. Imports nothing: an import may be interrupted."""
        self.arrived = number
        try:
            kill_children()
            self.clean_up()
            if self.report is not None:
                self.report(exception(number))
            else:
                os.write(2, f"{self.text}\n".encode())
        finally:
            os._exit(self.code)


def installed() -> Signals | None:
    """The Signals that handles Ctrl-C or SIGTERM now; None: another program imported us."""
    handlers = (signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM))
    return next((handler for handler in handlers if isinstance(handler, Signals)), None)


def end_start(code: int | None = None) -> None:
    """As Signals.end_start."""
    if (handler := installed()) is not None:
        handler.end_start(code)


@contextmanager
def imports() -> Iterator[None]:
    """Imports of a command, which a signal ends at once: an interrupted import fails in any way.

    For those before anything was begun.
    """
    handler = installed() or Signals()
    before = handler.ends_at_once
    handler.ends_at_once = True
    try:
        yield
    finally:
        handler.ends_at_once = before


@contextmanager
def stoppable(report: Report | None = None) -> Iterator[None]:
    """Raise KeyboardInterrupt or Stopped at a signal, also in a process without Signals.

    `report` gets the exception where the process has to be ended there. Only the main thread can.
    """
    known = installed()
    handler = known or Signals("nothing was saved")
    reader = None
    before = {}
    if known is None and threading.current_thread() is threading.main_thread():
        handler.report = report
        before = {number: signal.getsignal(number) for number in heeded()}
        reader = handler.listen()
    try:
        yield
    finally:
        if handler.arrived is not None or known is None:
            handler.is_answered.set()
        for number, earlier in before.items():
            signal.signal(number, earlier)
        if reader is not None:
            reader.close()


def leave(text: str) -> None:
    """Say from now on that a signal leaves `text` behind; empty: the command says so itself."""
    if (handler := installed()) is not None:
        handler.left = text


@contextmanager
def at_signal(cleanup: Callable[[], object]) -> Iterator[None]:
    """Call `cleanup` where a signal ends the process within the block."""
    handler = installed()
    cleanups = [] if handler is None else handler.cleanups
    cleanups.append(cleanup)
    try:
        yield
    finally:
        if cleanup in cleanups:  # not where another thread has ended the process
            cleanups.remove(cleanup)


@contextmanager
def temporary_folder(prefix: str, parent: Path | None = None) -> Iterator[Path]:
    """A new folder, removed at the end, also where a signal ends the process. Touches the disk."""
    folders: list[Path] = []

    def remove() -> None:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)

    with at_signal(remove):  # first: handlers are not seen while their signals are deferred
        try:
            with deferred():  # a signal in between would leave the folder behind
                folders.append(Path(mkdtemp(prefix=prefix, dir=parent)))
            yield folders[0]
        finally:
            with deferred():
                remove()


def exception(number: int) -> BaseException:
    """What the signal `number` raises."""
    return KeyboardInterrupt() if number == signal.SIGINT else Stopped(signal.Signals(number).name)


def _code(number: int) -> int:
    return exit_codes.INTERRUPTED if number == signal.SIGINT else exit_codes.RUN_AGAIN


def kill_children() -> None:
    """Kill the processes that this one started, and those that they started."""
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            child.kill()


@contextmanager
def handling(numbers: Iterable[int], handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Handle the signals `numbers` with `handler`, and restore the earlier handlers at the end.

    Does nothing outside of the main thread: only it may set handlers.
    """
    is_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, handler) for number in numbers if is_main}
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
    handler = installed() or Signals()
    before = handler.defers
    handler.defers = True
    try:
        with handling(heeded(), lambda number, _: arrived.append(number)):
            yield
    finally:
        handler.defers = before
    for number in arrived:
        signal.raise_signal(number)
