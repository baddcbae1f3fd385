"""Signals of a command: what each does in each phase, what is removed then, and their deferral."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from enum import Enum
from types import FrameType
from typing import Any, NoReturn

import psutil

from gearshift.launcher.base import exit_codes

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
"""The signals that end a command, and a run after it has saved."""
_LIMIT_S = 3.0
"""Seconds from a signal to the end of the process; a library may hold the main thread longer."""
_END = b"\0"
"""No signal: the one that waits for all before has written it to the pipe."""
Report = Callable[[BaseException], object]
"""Tells a supervisor of the exception of a signal."""
Take = Callable[[signal.Signals], object]
"""Takes a signal, in the thread that reads signals."""
Publish = Callable[[int, str], bool]
"""Tells the job script an exit code and why; whether this process prints that."""


class ProcessPhase(Enum):
    """What a process does as a signal arrives."""

    IMPORTS = "imports"
    """Nothing was begun, and an interrupted import may fail in any way."""
    COMMAND = "command"
    """Something has to be removed or reported."""
    JOB_STARTS = "job starts"
    """A run of a Slurm job has not trained yet; imports and the command are parts of that."""
    HOLDS = "holds"
    """Code that catches all exceptions, as imports of large libraries do, would swallow one."""
    TRAINS = "trains"
    """A part of the program saves at a signal, or passes it on."""
    ENDS = "ends"
    """A run of a Slurm job has trained, or failed: it tells the job script how it ended."""


class Answer(Enum):
    """What a signal does."""

    EXIT = "the process ends at once; the script of a job that starts runs it again"
    RAISE = "KeyboardInterrupt or Stopped is raised, and the process ends if it continues"
    HOLD = "it is raised when the phase ends, and the process ends if that lasts"
    TAKE = "the part of the program that saves takes it"
    IGNORE = "nothing"


_ANSWERS: Mapping[ProcessPhase, Answer] = {
    ProcessPhase.IMPORTS: Answer.EXIT,
    ProcessPhase.COMMAND: Answer.RAISE,
    ProcessPhase.JOB_STARTS: Answer.EXIT,
    ProcessPhase.HOLDS: Answer.HOLD,
    ProcessPhase.TRAINS: Answer.TAKE,
    ProcessPhase.ENDS: Answer.IGNORE,  # but Ctrl-C is raised
}


class Stopped(BaseException):
    """A signal arrived before anything was saved."""

    def __init__(self, signal_name: str) -> None:
        super().__init__(signal_name)
        self.signal_name = signal_name


class Signals:
    """What this process does at a signal that ends it, by its phase.

    It is the handler in the signal table of the process, where `installed` finds it. Handlers of
    Python run between its lines only, and a library may compute for minutes without any, or catch
    the exception: a thread reads each signal, too.
    """

    def __init__(self, left: str = "nothing was written") -> None:
        self.left = left
        """What the command leaves behind, for the user; empty: it says so itself."""
        self.phase = ProcessPhase.COMMAND
        self.cleanups: list[Callable[[], object]] = []
        self.arrived: signal.Signals | None = None
        """The signal that raised an exception."""
        self.report: Report | None = None
        self.held: list[int] = []
        """Signals to raise when phase HOLDS ends."""
        self.is_answered = threading.Event()
        """An exception of a signal was caught: the program ends by itself."""
        self.reader: _SignalReader | None = None
        self._take: Take | None = None
        """Of phase TRAINS."""
        self._job: ProcessPhase | None = None
        """Of a run in a job: whether it starts or ends, when it does not train."""
        self._publish: Publish = lambda code, text: True
        # A phase begins, and a signal is answered, one after the other; and a handler may
        # interrupt either.
        self._lock = threading.RLock()
        self._process = os.getpid()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Answer a signal in the main thread. A forked worker exits."""
        answer = self.answer(number)
        if answer in (Answer.TAKE, Answer.IGNORE):
            return
        if os.getpid() != self._process:
            os._exit(code_of(number))
        if answer is Answer.HOLD:
            self.held.append(number)
            return
        self.arrived = signal.Signals(number)
        if answer is Answer.EXIT:
            self.end(self.arrived)
        raise exception(number)

    def answer(self, number: int) -> Answer:
        """What the signal `number` does now."""
        phase = self.phase
        if self._job and phase is not ProcessPhase.TRAINS:
            phase = self._job
        if phase is ProcessPhase.ENDS and number == signal.SIGINT:
            return Answer.RAISE
        return _ANSWERS[phase]

    def listen(self) -> None:
        """Handle the signals that end a command, except those that the shell ignores."""
        self.reader = _SignalReader(self.read)
        for number in _unignored():
            signal.signal(number, self)

    def start_job(self, publish: Publish) -> None:
        """A run in a job starts; signals blocked since the start of the process come now."""
        self._publish = publish
        self._job = ProcessPhase.JOB_STARTS
        numbers = {*heeded()} - {signal.SIGINT}
        for number in numbers:
            signal.signal(number, self)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)

    @property
    def in_job(self) -> bool:
        """Whether a run in a job starts, or has started, in this process."""
        return self._job is not None

    def end_start(self) -> None:
        """The start of a run in a job is over: it trains, or has ended."""
        with self._lock:
            if self.in_job:
                self._job = ProcessPhase.ENDS

    @contextmanager
    def during(self, phase: ProcessPhase, take: Take | None) -> Iterator[None]:
        """Answer signals as in `phase` within."""
        phase_before = self.phase
        take_before = self._take
        with self._lock:
            if phase is ProcessPhase.TRAINS:
                self.end_start()
            self.phase = phase
            self._take = take
        try:
            yield
        finally:
            if self.reader and phase is ProcessPhase.TRAINS:
                self.reader.wait()  # what has arrived until now is for `take`
            with self._lock:
                self.phase = phase_before
                self._take = take_before

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
        return "; ".join(filter(None, (self._what, self.left)))

    @property
    def code(self) -> int:
        """The exit code after the signal."""
        assert self.arrived is not None
        return code_of(self.arrived)

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

    def end(self, number: signal.Signals) -> NoReturn:
        """End the process at once. Imports nothing: an import may be interrupted."""
        with self._lock:  # of the main thread and the one that reads, the first ends it
            self.arrived = number
            try:
                if self._job is ProcessPhase.JOB_STARTS:
                    text = f"{self._what} before anything was saved; run again"
                    # What it has begun stays: the next generation of the job continues it.
                    if self._publish(self.code, text):
                        os.write(2, f"{text}\n".encode())
                else:
                    kill_children()
                    self.clean_up()
                    if self.report:
                        self.report(exception(number))
                    else:
                        os.write(2, f"{self.text}\n".encode())
            finally:
                os._exit(self.code)

    def read(self, number: signal.Signals) -> None:
        """Answer a signal in the thread that reads them."""
        before = self.answer(number)
        # The main thread raises the exception; this one sees that it has an effect.
        if before in (Answer.RAISE, Answer.HOLD):
            is_handled = signal.getsignal(number) is self
            if not is_handled or self.is_answered.wait(_LIMIT_S):
                return
        with self._lock:
            answer = self.answer(number)  # a run may have begun to train meanwhile
            if answer is Answer.TAKE:
                assert self._take
                self._take(number)
            elif answer is not Answer.IGNORE and before not in (Answer.TAKE, Answer.IGNORE):
                self.end(number)

    @property
    def _what(self) -> str:
        assert self.arrived is not None
        is_key = self.arrived is signal.SIGINT
        return "interrupted" if is_key else f"stopped by {self.arrived.name}"


class _SignalReader:
    """Calls `take` with each signal that ends a command, in a thread, until it is closed.

    The interpreter writes each signal to a pipe, and the thread reads it: a Python handler would
    have to wait for the main thread, which may be in a long backward pass, in an import or stuck
    in a collective. For the main thread: only it may set the pipe. The newest reader gets the
    signals.
    """

    def __init__(self, take: Take) -> None:
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._write_end, False)
        self._has_read = threading.Event()
        self._before = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        # A forked data-loader worker shares the pipe: without this its signals would count as ours.
        os.register_at_fork(after_in_child=_forget_pipe)
        self._thread = threading.Thread(
            target=self._read, args=(take,), name="signals", daemon=True
        )
        self._thread.start()

    def wait(self) -> None:
        """Wait until the signals that have arrived are taken."""
        self._has_read.clear()
        os.write(self._write_end, _END)
        self._has_read.wait()

    def close(self) -> None:
        """Give the signals to the reader before, and wait until `take` has returned."""
        signal.set_wakeup_fd(self._before)
        os.close(self._write_end)
        self._thread.join()
        os.close(self._read_end)

    def _read(self, take: Take) -> None:
        while True:
            numbers = os.read(self._read_end, 64)
            if not numbers:
                return
            for number in numbers:
                if number in ENDING:
                    take(signal.Signals(number))
                elif number == _END[0]:
                    self._has_read.set()


def _forget_pipe() -> None:
    if threading.current_thread() is threading.main_thread():
        signal.set_wakeup_fd(-1)


def heeded() -> list[signal.Signals]:
    """The signals of ENDING, without a SIGHUP that nohup ignores."""
    is_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [number for number in ENDING if number != signal.SIGHUP or not is_ignored]


def _unignored() -> list[signal.Signals]:
    """The signals of ENDING, without those that the shell ignores, as for background programs."""
    return [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]


def installed() -> Signals | None:
    """The Signals that handles Ctrl-C or SIGTERM now; None: another program imported us."""
    for number in (signal.SIGINT, signal.SIGTERM):
        handler = signal.getsignal(number)
        if isinstance(handler, Signals):
            return handler
    return None


def end_start() -> None:
    """As Signals.end_start."""
    (installed() or Signals()).end_start()


@contextmanager
def phase(
    name: ProcessPhase, take: Take | None = None, report: Report | None = None
) -> Iterator[Signals]:
    """Answer signals as in the phase `name` within, also in a process without Signals.

    `take` is for phase TRAINS. `report` gets the exception where the process has to be ended, if
    another program imported us. Outside of the main thread nothing changes: only it can.
    """
    known = installed()
    handler = known or Signals("nothing was saved")
    if threading.current_thread() is not threading.main_thread():
        yield handler
        return
    with ExitStack() as cleanup:
        if not known:
            handler.report = report
            cleanup.enter_context(handling(_unignored(), handler))
            if name is not ProcessPhase.HOLDS:  # the program that imported us may take its time
                handler.reader = _SignalReader(handler.read)
                cleanup.callback(handler.reader.close)
                cleanup.callback(handler.is_answered.set)  # the reader may wait for it
        if name is ProcessPhase.TRAINS:  # also the Ctrl-C that a shell ignores in the background
            cleanup.enter_context(handling(heeded(), handler))
        cleanup.enter_context(handler.during(name, take))
        yield handler


@contextmanager
def stoppable(report: Report | None = None) -> Iterator[None]:
    """Raise KeyboardInterrupt or Stopped at a signal, and end by itself after that; as `phase`."""
    with phase(ProcessPhase.COMMAND, report=report) as handler:
        try:
            yield
        finally:
            if handler.arrived is not None:
                handler.is_answered.set()


def leave(text: str) -> None:
    """Say from now on that a signal leaves `text` behind; empty: the command says so itself."""
    (installed() or Signals()).left = text


@contextmanager
def at_signal(cleanup: Callable[[], object]) -> Iterator[None]:
    """Call `cleanup` where a signal ends the process within the block."""
    cleanups = (installed() or Signals()).cleanups
    cleanups.append(cleanup)
    try:
        yield
    finally:
        if cleanup in cleanups:  # not where another thread has ended the process
            cleanups.remove(cleanup)


def exception(number: int) -> BaseException:
    """What the signal `number` raises."""
    name = signal.Signals(number).name
    return KeyboardInterrupt() if number == signal.SIGINT else Stopped(name)


def code_of(number: int) -> int:
    """The exit code after the signal `number`."""
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
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


@contextmanager
def deferred() -> Iterator[None]:
    """Raise the signals that end a command at the end of the block. See `phase`."""
    known = installed()
    if known and known.phase is ProcessPhase.TRAINS:
        yield  # no signal raises an exception here
        return
    with phase(ProcessPhase.HOLDS) as handler:
        yield
    held = [*handler.held]
    handler.held.clear()
    # As if they came now: the handler raises here, or another program's does.
    for number in held:
        signal.raise_signal(number)
