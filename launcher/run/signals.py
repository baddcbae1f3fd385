"""Signal handlers: during start-up, deferred, and replaced for a while."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import NoReturn

from launcher.base import environment, exit_codes
from launcher.run_folder import generations
from slurm.environment import JOB_VARIABLE, Generation, InvalidEnvironment, read_generation

ENDING = tuple(name for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP") if hasattr(signal, name))
"""The signals that end a run."""


@contextmanager
def handling(numbers: Iterable[int], handler: Callable[[int, object], None]) -> Iterator[None]:
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
    found = [signal.Signals[name] for name in names if hasattr(signal, name)]
    ignored = [n for n in found if n.name == "SIGHUP" and signal.getsignal(n) is signal.SIG_IGN]
    return [number for number in found if number not in ignored]


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
def exit_on_interrupt() -> Iterator[None]:
    """End this process at once on Ctrl-C, if it is our own: an interrupted import fails in any way.

    For imports before anything was begun. Does nothing outside of the main thread.
    """
    if not environment.Process.is_own or threading.current_thread() is not threading.main_thread():
        yield
        return
    with handling([signal.SIGINT], _exit_interrupted):
        yield


def _exit_interrupted(number: int, frame: object) -> None:
    os.write(2, b"interrupted\n")
    os._exit(exit_codes.INTERRUPTED)


class _Interrupt:
    """Handles SIGINT as Python does, and knows that it has."""

    def __init__(self) -> None:
        self.has_raised = False

    def __call__(self, number: int, frame: FrameType | None) -> NoReturn:
        self.has_raised = True
        signal.default_int_handler(number, frame)


def raise_on_interrupt() -> None:
    """Raise KeyboardInterrupt on Ctrl-C from now on, and know that it was raised."""
    signal.signal(signal.SIGINT, _Interrupt())


def has_raised_interrupt() -> bool:
    """Whether the handler of `raise_on_interrupt` has raised KeyboardInterrupt.

    A library may turn the exception into one of its own, as pydantic does in a validator.
    """
    found = signal.getsignal(signal.SIGINT)
    return isinstance(found, _Interrupt) and found.has_raised


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


_SIGNALS = (signal.SIGTERM, signal.SIGUSR1) if hasattr(signal, "SIGUSR1") else (signal.SIGTERM,)
_OUT = "--out"


class StartupSignals:
    """Handles signals from the first line of the program until the training handles them.

    It is the handler in the signal table of the process, where `startup_signals` finds it.
    The interpreter writes a signal to a pipe when it arrives, and a thread reads it there: a
    handler in Python would wait for the main thread, which may be in a long import or in a
    rendezvous. An exception raised in a handler could be caught by other code.
    """

    def __init__(self, run: Path | None, generation: Generation | None) -> None:
        self._run = run
        self._generation = generation
        self._process = os.getpid()
        self._critical = threading.Lock()
        self._decided: int | None = None
        self._is_finished = False
        self._arrived_late = False

    def __call__(self, number: int, frame: object) -> None:
        """Do nothing: the thread reads the signal. A forked worker exits."""
        if os.getpid() != self._process:
            os._exit(exit_codes.RUN_AGAIN)

    def listen(self) -> None:
        """Start; signals blocked since the start of the process are handled now."""
        read_end, write_end = os.pipe()
        os.set_blocking(write_end, False)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        # A forked data-loader worker shares the pipe.
        os.register_at_fork(after_in_child=forget_pipe)
        for number in _SIGNALS:
            signal.signal(number, self)
        threading.Thread(
            target=self._read, args=(read_end,), name="startup signals", daemon=True
        ).start()
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Defer signals while something is done that must not be interrupted."""
        with self._critical:
            yield

    def finish(self, code: int | None = None) -> None:
        """Stop handling signals: the training handles them, or has ended.

        With a `code`, a signal ends this process at once with that code, also a signal that arrived
        since the training handles them: the process only waits for others to report first.
        """
        with self._critical:
            self._decided, self._is_finished = code, True
            if self._arrived_late:
                self._exit()

    def _read(self, read_end: int) -> None:
        while arrived := os.read(read_end, 64):
            for number in arrived:
                if number in _SIGNALS:
                    with self._critical:
                        self._end(signal.Signals(number).name)

    def _end(self, name: str) -> None:
        if self._is_finished:
            self._arrived_late = True
            self._exit()
            return
        text = f"stopped by {name} before anything was saved; run again"
        is_first = True
        if self._run is not None and self._generation is not None:
            is_first = generations.publish_outcome(
                self._run, self._generation, exit_codes.RUN_AGAIN, text
            )
        if is_first:
            os.write(2, f"{text}\n".encode())
        os._exit(exit_codes.RUN_AGAIN)

    def _exit(self) -> None:
        if self._decided is not None:
            os._exit(self._decided)


def handle_startup_signals(argv: Sequence[str], environ: Mapping[str, str]) -> None:
    """Handle signals from now on, if this process belongs to a job of Slurm."""
    if not environ.get(JOB_VARIABLE):
        return
    try:
        generation = read_generation(environ)
    except InvalidEnvironment:  # reported when all arguments are checked
        generation = None
    StartupSignals(_out(argv), generation).listen()


def startup_signals() -> StartupSignals | None:
    """The StartupSignals that handles signals now."""
    found = signal.getsignal(signal.SIGTERM)
    return found if isinstance(found, StartupSignals) else None


@contextmanager
def startup_deferred() -> Iterator[None]:
    """Defer startup signals, as StartupSignals.deferred."""
    handler = startup_signals()
    with nullcontext() if handler is None else handler.deferred():
        yield


def finish_startup(code: int | None = None) -> None:
    """Stop handling startup signals, as StartupSignals.finish."""
    if (handler := startup_signals()) is not None:
        handler.finish(code)


def ignore_until_exit() -> None:
    """Ignore further signals: the process exits, and the interpreter removes handlers first."""
    if startup_signals() is not None:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)


def _out(argv: Sequence[str]) -> Path | None:
    """The run folder given by --out, before the arguments are parsed."""
    found = None
    for position, argument in enumerate(argv):
        if argument == _OUT and position + 1 < len(argv):
            found = argv[position + 1]
        elif argument.startswith(f"{_OUT}="):
            found = argument.partition("=")[2]
    return Path(found) if found else None


def forget_pipe() -> None:
    """In a forked process: its signals are not those of the process that reads the pipe."""
    if threading.current_thread() is threading.main_thread():
        signal.set_wakeup_fd(-1)
