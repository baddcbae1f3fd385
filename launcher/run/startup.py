"""Signals during the start of a run in a job, before the training handles them."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.base import exit_codes
from launcher.base.signals import forget_pipe
from training.callbacks.preemption import heeded

if TYPE_CHECKING:
    from slurm.environment import Generation

_OUT = "--out"


class StartupSignals:
    """Handles signals from the first line of the program until the training handles them.

    It is the handler in the signal table of the process, where `startup_signals` finds it.
    The interpreter writes a signal to a pipe when it arrives, and a thread reads it there: a
    handler in Python would wait for the main thread, which may be in a long import or in a
    rendezvous. An exception raised in a handler could be caught by other code.
    """

    def __init__(self, run: Path | None, generation: Generation | None) -> None:
        self._run, self._generation = run, generation
        self._process = os.getpid()
        self._critical = threading.Lock()
        self._decided: int | None = None
        self._numbers: list[signal.Signals] = []
        self._is_finished = self._arrived_late = False

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
        # A Ctrl-C stays a KeyboardInterrupt: batch jobs get none.
        self._numbers = [number for number in heeded() if number is not signal.SIGINT]
        for number in self._numbers:
            signal.signal(number, self)
        name = "startup signals"
        threading.Thread(target=self._read, args=(read_end,), name=name, daemon=True).start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._numbers)

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
            if self._arrived_late and code is not None:
                os._exit(code)

    def _read(self, read_end: int) -> None:
        while arrived := os.read(read_end, 64):
            for number in arrived:
                if number in self._numbers:
                    with self._critical:
                        self._end(signal.Signals(number).name)

    def _end(self, name: str) -> None:
        if self._is_finished:
            self._arrived_late = True
            if self._decided is not None:
                os._exit(self._decided)
            return
        text = f"stopped by {name} before anything was saved; run again"
        is_first = True
        if self._run is not None and self._generation is not None:
            from launcher.run_folder.generations import publish_outcome

            code = exit_codes.RUN_AGAIN
            is_first = publish_outcome(self._run, self._generation, code, text)
        if is_first:
            os.write(2, f"{text}\n".encode())
        os._exit(exit_codes.RUN_AGAIN)


def handle_startup_signals(argv: Sequence[str], environ: Mapping[str, str]) -> None:
    """Handle signals from now on, if this process belongs to a job of Slurm."""
    from slurm.environment import JOB_VARIABLE, InvalidEnvironment, read_generation

    if not environ.get(JOB_VARIABLE):
        return
    # Imported before a signal: an import in the thread could wait for one of the main thread.
    from launcher.run_folder import generations  # noqa: F401

    try:
        generation = read_generation(environ)
    except InvalidEnvironment:  # reported when all arguments are checked
        generation = None
    out = None  # the run folder, before the arguments are parsed
    for position, argument in enumerate(argv):
        if argument == _OUT and position + 1 < len(argv):
            out = argv[position + 1]
        elif argument.startswith(f"{_OUT}="):
            out = argument.partition("=")[2]
    StartupSignals(Path(out) if out else None, generation).listen()


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
