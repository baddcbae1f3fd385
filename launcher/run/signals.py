"""Signals that are answered otherwise for a while."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from launcher.base import exit_codes
from launcher.run_folder import generations
from slurm.environment import JOB_VARIABLE, Generation, InvalidEnvironment, read_generation


@contextmanager
def answered(numbers: Iterable[int], handler: Callable[[int, object], None]) -> Iterator[None]:
    """Meanwhile `handler` answers the signals `numbers`; afterwards who did before.

    For the main thread, the only one that may ask for that.
    """
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


@contextmanager
def held_back(names: Iterable[str]) -> Iterator[None]:
    """Meanwhile the signals `names` wait; those that came are answered on leaving.

    Outside the main thread, which alone answers signals, nothing need wait.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    with answered((getattr(signal, name) for name in names), lambda number, _: came.append(number)):
        yield
    for number in came:
        signal.raise_signal(number)


_SIGNALS = (signal.SIGTERM, signal.SIGUSR1) if hasattr(signal, "SIGUSR1") else (signal.SIGTERM,)
_OUT = "--out"


class Early:
    """Answers signals from the first line of the program until the training itself listens.

    It stands in the process's table of signals, where `current` finds it. The interpreter writes a
    signal to a pipe as it arrives, and a thread reads it there: a handler in Python would have to
    wait for the main thread, which may be in a long import, or in a rendezvous with a rank that
    does not come. A raised exception could be lost in code that catches all.
    """

    def __init__(self, run: Path | None, generation: Generation | None) -> None:
        self._run = run
        self._generation = generation
        self._process = os.getpid()
        self._critical = threading.Lock()
        self._decided: int | None = None
        self._is_over = False
        self._came_late = False

    def __call__(self, number: int, frame: object) -> None:
        """Nothing: the thread has the signal already. A forked worker ends by itself."""
        if os.getpid() != self._process:
            os._exit(exit_codes.RUN_AGAIN)

    def listen(self) -> None:
        """Begin; signals that were held back since the process began are answered now."""
        read_end, write_end = os.pipe()
        os.set_blocking(write_end, False)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        # A forked loader worker shares the pipe: its signals are not ours.
        os.register_at_fork(after_in_child=_forget)
        for number in _SIGNALS:
            signal.signal(number, self)
        threading.Thread(
            target=self._answer, args=(read_end,), name="early signals", daemon=True
        ).start()
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

    @contextmanager
    def put_off(self) -> Iterator[None]:
        """Meanwhile a signal waits: what is being done must be done wholly or not at all."""
        with self._critical:
            yield

    def over(self, code: int | None = None) -> None:
        """Signals decide nothing here any more: the training listens, or has come to its end.

        With a `code` one ends this rank at once, with that, for it only waits for its turn to
        speak; also one that came since the training listened.
        """
        with self._critical:
            self._decided, self._is_over = code, True
            if self._came_late:
                self._leave()

    def _answer(self, read_end: int) -> None:
        while arrived := os.read(read_end, 64):
            for number in arrived:
                if number in _SIGNALS:
                    with self._critical:
                        self._end(signal.Signals(number).name)

    def _end(self, name: str) -> None:
        if self._is_over:
            self._came_late = True
            self._leave()
            return
        text = f"stopped by {name} before there was anything to save; run me again"
        is_first = True
        if self._run is not None and self._generation is not None:
            is_first = generations.publish_outcome(
                self._run, self._generation, exit_codes.RUN_AGAIN, text
            )
        if is_first:
            os.write(2, f"{text}\n".encode())
        os._exit(exit_codes.RUN_AGAIN)

    def _leave(self) -> None:
        if self._decided is not None:
            os._exit(self._decided)


def listen(argv: Sequence[str], environ: Mapping[str, str]) -> None:
    """In a job's process, the one of a command line: answer signals from now on.

    Elsewhere nothing changes: a signal does what it always did.
    """
    if not environ.get(JOB_VARIABLE):
        return
    try:
        generation = read_generation(environ)
    except InvalidEnvironment:  # told where all words are read
        generation = None
    Early(_out(argv), generation).listen()


def current() -> Early | None:
    """Who answers signals now, where that is an `Early`."""
    found = signal.getsignal(signal.SIGTERM)
    return found if isinstance(found, Early) else None


@contextmanager
def put_off() -> Iterator[None]:
    """As `Early.put_off`, where one listens."""
    listening = current()
    if listening is None:
        yield
    else:
        with listening.put_off():
            yield


def over(code: int | None = None) -> None:
    """As `Early.over`, where one listens."""
    if (listening := current()) is not None:
        listening.over(code)


def end() -> None:
    """The process ends by itself, and its interpreter takes all handlers away before.

    It is told again and again to save and end, and shall not die of that now.
    """
    if current() is not None:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)


def _out(argv: Sequence[str]) -> Path | None:
    """The run folder, by the words alone: nothing has parsed them yet."""
    found = None
    for place, word in enumerate(argv):
        if word == _OUT and place + 1 < len(argv):
            found = argv[place + 1]
        elif word.startswith(f"{_OUT}="):
            found = word.partition("=")[2]
    return Path(found) if found else None


def _forget() -> None:
    if threading.current_thread() is threading.main_thread():
        signal.set_wakeup_fd(-1)
