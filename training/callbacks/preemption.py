"""Callbacks that end a run: at a signal, and at a deadline."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gearshift.training.callbacks.base import INTERRUPTED, Action, Callback, Emit, Outcome

if TYPE_CHECKING:
    from gearshift.training.train_plan import TrainPlan

_SENT_TO_ALL = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
"""Signals that a terminal or a scheduler sends to each process of a run."""
_SAME_PRESS_S = 0.5
Listen = Callable[[Callable[[signal.Signals], None]], AbstractContextManager[object]]
"""Lets a function take each signal that ends a run, in a thread, within a block."""


class Preemption(Callback):
    """Turns the signals that end a run into actions; a second Ctrl-C ends it at once."""

    def __init__(self, emit: Emit, listen: Listen, saves: bool = True) -> None:
        """`emit` takes a "signal" event from the training thread; `saves` is one of its facts."""
        self._emit = emit
        self._listen = listen
        self._saves = saves
        self._actions = Action.NOTHING
        self._emitted = Action.NOTHING
        self._names: list[str] = []
        self._interrupted_at = math.inf
        self._listening = ExitStack()

    def start(self, train_plan: TrainPlan) -> None:
        self._listening.enter_context(self._listen(self._take))

    def requested(self) -> Action:
        if self._actions is not self._emitted:
            self._emitted = self._actions
            self._emit("signal", {"names": list(self._names), "saves": self._saves})
        return self._actions

    def end(self, outcome: Outcome) -> None:
        self._listening.close()

    def _take(self, arrived: signal.Signals) -> None:
        action = Action.SIGNAL
        if arrived is signal.SIGINT:
            action = Action.INTERRUPT
            now = time.monotonic()
            # One press reaches a process twice if its parent forwards signals too.
            if now - self._interrupted_at > _SAME_PRESS_S:
                os._exit(INTERRUPTED)
            self._interrupted_at = min(now, self._interrupted_at)
        if arrived.name not in self._names:
            self._names.append(arrived.name)
        self._actions |= action | Action.SAVE


@dataclass
class Deadline(Callback):
    """Requests a save and the end of the run, as a signal does, at a time in seconds since 1970."""

    at: float
    emit: Emit
    now: Callable[[], float] = time.time
    is_emitted: bool = False

    def requested(self) -> Action:
        """Check the clock; ranks with different clocks agree, as on all actions."""
        if self.now() < self.at:
            return Action.NOTHING
        if not self.is_emitted:
            self.is_emitted = True
            self.emit("deadline", {"at": self.at})
        return Action.SIGNAL | Action.SAVE


def ignore_ending() -> None:
    """Let a data-loader worker or the process of a tracker ignore the signals that end a run.

    A worker that dies of one would end the run before it can save; workers end with their loader
    or its process.
    """
    for number in _SENT_TO_ALL:
        signal.signal(number, signal.SIG_IGN)
