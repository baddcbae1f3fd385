"""Callbacks that request a save and the end of the run: signals, and a deadline."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from training.callbacks.base import Action, Callback, Outcome, Step
from training.train_plan import TrainPlan

_ASKS = {
    signal.SIGTERM: Action.SIGNAL | Action.SAVE,
    signal.SIGUSR1: Action.SIGNAL | Action.SAVE,
    signal.SIGINT: Action.INTERRUPT | Action.SAVE,
}
_SAME_PRESS_S = 0.5
_EXIT_AT_ONCE = 130

Tell = Callable[[str, Mapping[str, object]], None]


class Preemption(Callback):
    """Turns SIGTERM, SIGUSR1 and SIGINT into asks; a second Ctrl-C ends the process at once.

    The interpreter writes each signal to a pipe as it arrives, and a thread reads it there: a
    Python handler would have to wait for the main thread, which may be deep in a backward or stuck
    in a collective. Outside the main thread nothing is installed, as Python allows it only there.
    `tell` is given a "signal" event, from the training thread.
    """

    def __init__(self, tell: Tell, saves: bool = True) -> None:
        """`saves`: what the person is told; whether the run does save is not decided here."""
        self._tell = tell
        self._saves = saves
        self._ask = Action.NOTHING
        self._told = Action.NOTHING
        self._names: list[str] = []
        self._interrupted_at: float | None = None
        self._old_handlers: dict[signal.Signals, Any] = {}
        self._old_wakeup = -1
        self._ends: tuple[int, int] | None = None
        self._thread: threading.Thread | None = None

    def start(self, train_plan: TrainPlan) -> None:
        """Begin to listen."""
        if threading.current_thread() is not threading.main_thread():
            return
        read_end, write_end = os.pipe()
        os.set_blocking(write_end, False)
        self._ends = read_end, write_end
        self._old_wakeup = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        # A forked loader worker shares the pipe: without this its signals would count as ours.
        os.register_at_fork(after_in_child=self._forget)
        for number in _ASKS:
            self._old_handlers[number] = signal.signal(number, _nothing)
        self._thread = threading.Thread(
            target=self._listen, args=(read_end,), name="signals", daemon=True
        )
        self._thread.start()

    def step(self, step: Step) -> Action:
        """What the signals so far ask for."""
        if self._ask is not self._told:
            self._told = self._ask
            self._tell("signal", {"names": list(self._names), "saves": self._saves})
        return self._ask

    def end(self, outcome: Outcome) -> None:
        """Put back the handlers there were."""
        if self._ends is None:
            return
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_wakeup)
        read_end, write_end = self._ends
        self._ends = None
        os.close(write_end)
        if self._thread is not None:
            self._thread.join()
        os.close(read_end)

    def _listen(self, read_end: int) -> None:
        while arrived := os.read(read_end, 64):
            for number in arrived:
                self._note(number)

    def _note(self, number: int) -> None:
        if number not in _ASKS:
            return
        which = signal.Signals(number)
        if which is signal.SIGINT:
            now = time.monotonic()
            # One press reaches a process twice where its parent hands signals on as well.
            if self._interrupted_at is None:
                self._interrupted_at = now
            elif now - self._interrupted_at > _SAME_PRESS_S:
                os._exit(_EXIT_AT_ONCE)
        if which.name not in self._names:
            self._names.append(which.name)
        self._ask |= _ASKS[which]

    def _forget(self) -> None:
        if self._ends is not None:
            signal.set_wakeup_fd(-1)


def ignore_in_worker() -> None:
    """Let a loader worker live through the signals that ask the run to save and end.

    A terminal and a scheduler send them to every process; a worker that died of one would take the
    run with it before it could save. Workers end when the loader or its process does.
    """
    for number in _ASKS:
        signal.signal(number, signal.SIG_IGN)


def _nothing(number: int, frame: object) -> None:
    """Stands where the default action would end the process; the pipe has the signal already."""


Tell = Callable[[str, Mapping[str, object]], None]


class Deadline(Callback):
    """Asks to save and end, as a signal would, once it is `at`, in seconds since the epoch."""

    def __init__(self, at: float, tell: Tell, now: Callable[[], float] = time.time) -> None:
        self._at, self._tell, self._now = at, tell, now
        self._is_told = False

    def step(self, step: Step) -> Action:
        """Look at the clock; ranks whose clocks differ agree, as on all that is asked."""
        if self._now() < self._at:
            return Action.NOTHING
        if not self._is_told:
            self._is_told = True
            self._tell("deadline", {"at": self._at})
        return Action.SIGNAL | Action.SAVE
