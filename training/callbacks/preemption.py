"""Callbacks that request a save and the end of the run: signals, and a deadline."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gearshift.training.callbacks.base import Action, Callback, Emit, Outcome, Step

if TYPE_CHECKING:
    from gearshift.training.train_plan import TrainPlan

_NAMES = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP")
ENDING = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))
"""The signals that end a command, and a run after it has saved; Windows lacks the last two."""
_SAME_PRESS_S = 0.5
_EXIT_AT_ONCE = 130


def heeded() -> list[signal.Signals]:
    """The signals of ENDING, without a SIGHUP that nohup ignores."""
    return [s for s in ENDING if s.name != "SIGHUP" or signal.getsignal(s) is not signal.SIG_IGN]


class SignalReader:
    """Calls `take` with each signal that ends a command, in a thread, until it is closed.

    The interpreter writes each signal to a pipe, and the thread reads it: a Python handler would have
    to wait for the main thread, which may be in a long backward pass, in an import or stuck in a
    collective. For the main thread: only it may set the pipe. The newest reader gets the signals.
    """

    def __init__(self, take: Callable[[signal.Signals], None]) -> None:
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._write_end, False)
        self._before = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        # A forked data-loader worker shares the pipe: without this its signals would count as ours.
        os.register_at_fork(after_in_child=_forget_pipe)
        self._thread = threading.Thread(
            target=self._read, args=(take,), name="signals", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Give the signals to the reader before, and wait until `take` has returned."""
        signal.set_wakeup_fd(self._before)
        os.close(self._write_end)
        self._thread.join()
        os.close(self._read_end)

    def _read(self, take: Callable[[signal.Signals], None]) -> None:
        while numbers := os.read(self._read_end, 64):
            for number in numbers:
                if number in ENDING:
                    take(signal.Signals(number))


def _forget_pipe() -> None:
    if threading.current_thread() is threading.main_thread():
        signal.set_wakeup_fd(-1)


class Preemption(Callback):
    """Turns the signals that end a run into actions; a second Ctrl-C ends it at once.

    Does nothing outside the main thread, as Python installs handlers only there.
    """

    def __init__(self, emit: Emit, saves: bool = True) -> None:
        """`emit` takes a "signal" event from the training thread; `saves` is one of its facts."""
        self._emit = emit
        self._saves = saves
        self._actions = self._emitted = Action.NOTHING
        self._names: list[str] = []
        self._interrupted_at: float | None = None
        self._old_handlers: dict[signal.Signals, Any] = {}
        self._reader: SignalReader | None = None

    def start(self, train_plan: TrainPlan) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        self._reader = SignalReader(self._add)
        for number in heeded():
            self._old_handlers[number] = signal.signal(number, _nothing)

    def step(self, step: Step) -> Action:
        return self.requested()

    def requested(self) -> Action:
        if self._actions is not self._emitted:
            self._emitted = self._actions
            self._emit("signal", {"names": list(self._names), "saves": self._saves})
        return self._actions

    def end(self, outcome: Outcome) -> None:
        if self._reader is None:
            return
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)
        self._reader.close()
        self._reader = None

    def _add(self, arrived: signal.Signals) -> None:
        if arrived is signal.SIGINT:
            now = time.monotonic()
            # One press reaches a process twice if its parent forwards signals too.
            if self._interrupted_at is None:
                self._interrupted_at = now
            elif now - self._interrupted_at > _SAME_PRESS_S:
                os._exit(_EXIT_AT_ONCE)
        if arrived.name not in self._names:
            self._names.append(arrived.name)
        action = Action.INTERRUPT if arrived is signal.SIGINT else Action.SIGNAL
        self._actions |= action | Action.SAVE


@dataclass
class Deadline(Callback):
    """Requests a save and the end of the run, as a signal does, at a time in seconds since 1970."""

    at: float
    emit: Emit
    now: Callable[[], float] = time.time
    is_emitted: bool = False

    def step(self, step: Step) -> Action:
        """Check the clock; ranks with different clocks agree, as on all actions."""
        return self.requested()

    def requested(self) -> Action:
        if self.now() < self.at:
            return Action.NOTHING
        if not self.is_emitted:
            self.is_emitted = True
            self.emit("deadline", {"at": self.at})
        return Action.SIGNAL | Action.SAVE


def ignore_ending() -> None:
    """Let a data-loader worker or the process of a tracker ignore the signals that end a run.

    A terminal and a scheduler send them to every process. A worker that dies of one would end the
    run before it can save; workers end with their loader or its process.
    """
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


def _nothing(number: int, frame: object) -> None:
    """Replaces the default action, which would end the process; the pipe has the signal."""
