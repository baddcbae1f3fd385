"""The hour at which a run saves and ends, however much is left to do."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from training.callbacks.base import Action, Callback, Step

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
