"""Signals during the start of a run in a job, before the training handles them."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from launcher.base import exit_codes
from launcher.base.signals import forget_pipe
from launcher.run_folder import generations
from slurm.environment import JOB_VARIABLE, Generation, InvalidEnvironment, read_generation

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
    handler = signal.getsignal(signal.SIGTERM)
    return handler if isinstance(handler, StartupSignals) else None


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


def _out(argv: Sequence[str]) -> Path | None:
    """The run folder given by --out, before the arguments are parsed."""
    value = None
    for position, argument in enumerate(argv):
        if argument == _OUT and position + 1 < len(argv):
            value = argv[position + 1]
        elif argument.startswith(f"{_OUT}="):
            value = argument.partition("=")[2]
    return Path(value) if value else None
