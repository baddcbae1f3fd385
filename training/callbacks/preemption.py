"""Callbacks that request a save and the end of the run: signals, and a deadline."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from training.callbacks.base import Action, Callback, Outcome, Step

if TYPE_CHECKING:
    from training.train_plan import TrainPlan

_NAMES = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP")
ENDING = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))
"""The signals that end a command, and a run after it has saved; Windows lacks the last two."""
_SAME_PRESS_S = 0.5
_EXIT_AT_ONCE = 130

Emit = Callable[[str, Mapping[str, object]], None]
"""Takes an event: kind and facts."""


def heeded() -> list[signal.Signals]:
    """The signals of ENDING, without a SIGHUP that nohup ignores."""
    hangup = getattr(signal, "SIGHUP", None)
    is_ignored = hangup is not None and signal.getsignal(hangup) is signal.SIG_IGN
    return [number for number in ENDING if number is not hangup or not is_ignored]


class Preemption(Callback):
    """Turns the signals that end a run into actions; a second Ctrl-C ends it at once.

    The interpreter writes each signal to a pipe, and a thread reads it: a Python handler would have
    to wait for the main thread, which may be in a long backward pass or stuck in a collective. Does
    nothing outside the main thread, as Python installs handlers only there.
    """

    def __init__(self, emit: Emit, saves: bool = True) -> None:
        """`emit` takes a "signal" event from the training thread; `saves` is one of its facts."""
        self._emit, self._saves = emit, saves
        self._actions = self._emitted = Action.NOTHING
        self._names: list[str] = []
        self._interrupted_at: float | None = None
        self._old_handlers: dict[signal.Signals, Any] = {}
        self._old_wakeup = -1
        self._pipe: tuple[int, int] | None = None
        self._thread: threading.Thread | None = None

    def start(self, train_plan: TrainPlan) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        read_end, write_end = os.pipe()
        os.set_blocking(write_end, False)
        self._pipe = read_end, write_end
        self._old_wakeup = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        # A forked data-loader worker shares the pipe: without this its signals would count as ours.
        os.register_at_fork(after_in_child=self._detach)
        for number in heeded():
            self._old_handlers[number] = signal.signal(number, _nothing)
        self._thread = threading.Thread(target=self._read, args=(read_end,), daemon=True)
        self._thread.start()

    def step(self, step: Step) -> Action:
        return self.requested()

    def requested(self) -> Action:
        if self._actions is not self._emitted:
            self._emitted = self._actions
            self._emit("signal", {"names": list(self._names), "saves": self._saves})
        return self._actions

    def end(self, outcome: Outcome) -> None:
        if self._pipe is None:
            return
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_wakeup)
        read_end, write_end = self._pipe
        self._pipe = None
        os.close(write_end)
        if self._thread is not None:
            self._thread.join()
        os.close(read_end)

    def _read(self, read_end: int) -> None:
        while numbers := os.read(read_end, 64):
            for number in numbers:
                self._add(number)

    def _add(self, number: int) -> None:
        if number not in ENDING:
            return
        arrived = signal.Signals(number)
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

    def _detach(self) -> None:
        if self._pipe is not None:
            signal.set_wakeup_fd(-1)


class Deadline(Callback):
    """Requests a save and the end of the run, as a signal does, at a time in seconds since 1970."""

    def __init__(self, at: float, emit: Emit, now: Callable[[], float] = time.time) -> None:
        self._at, self._emit, self._now = at, emit, now
        self._is_emitted = False

    def step(self, step: Step) -> Action:
        """Check the clock; ranks with different clocks agree, as on all actions."""
        return self.requested()

    def requested(self) -> Action:
        if self._now() < self._at:
            return Action.NOTHING
        if not self._is_emitted:
            self._is_emitted = True
            self._emit("deadline", {"at": self._at})
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
