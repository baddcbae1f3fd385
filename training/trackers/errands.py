"""Work that a thread of its own does in order, while nobody waits for it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

Errand = Callable[[], None]
MOST = 4096
"""Errands that wait; beyond, the disk or server is so slow that new ones are dropped."""


class Errands:
    """Does errands in a thread until one fails; neither `add` nor the thread ever raises."""

    def __init__(self, name: str, idle: Errand) -> None:
        """`idle` is done whenever nothing is left to do, such as writing to disk."""
        self._idle = idle
        self._waiting: deque[Errand] = deque()
        self._changed = threading.Condition()
        self._is_last = False
        self.fault: str | None = None
        """Why nothing is done any more."""
        self.dropped = 0
        """Errands that there was no room for."""
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def add(self, errand: Errand) -> None:
        """To be done after all others."""
        with self._changed:
            if self.fault is not None or self._is_last:
                return
            if len(self._waiting) >= MOST:
                self.dropped += 1
                return
            self._waiting.append(errand)
            self._changed.notify()

    def finish(self, last: Errand, within_s: float) -> bool:
        """Do `last` and end; whether all was done within so many seconds."""
        with self._changed:
            self._waiting.append(last)
            self._is_last = True
            self._changed.notify()
        self._thread.join(within_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        try:
            while self._take():
                pass
        except Exception as fault:  # whatever a tracker does must not end a run
            with self._changed:
                self.fault = f"{type(fault).__name__}: {fault}"
                self._waiting.clear()

    def _take(self) -> bool:
        """Do the next errand; False after the last."""
        with self._changed:
            while not self._waiting:
                if self._is_last:
                    return False
                self._changed.wait()
            errand, is_idle = self._waiting.popleft(), not self._waiting
        errand()
        if is_idle:
            self._idle()
        return True
