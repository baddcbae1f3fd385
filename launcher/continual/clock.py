"""Time, and the signals that end a wait."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_STOPPERS = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP")


class Clock:
    """The clocks of the machine; a wait ends early where a signal asks for the end of the run."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._breaks = False
        self.signals: set[int] = set()
        """Those that asked for the end."""

    def now(self) -> float:
        """Seconds of a clock that only goes on."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def wait(self, seconds: float) -> None:
        """Sleep for so long, or until a signal comes."""
        self._asked.wait(seconds)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Within, signals are taken note of; those to the ranks are handed on by who starts them.

        Only the main thread can listen.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = [getattr(signal, name) for name in _STOPPERS if hasattr(signal, name)]
        before = {number: signal.signal(number, self._take) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def breaking(self) -> Iterator[None]:
        """Within, a signal breaks off what is done, by a KeyboardInterrupt, whatever it is."""
        self._breaks = True
        try:
            if self.signals:
                raise KeyboardInterrupt
            yield
        finally:
            self._breaks = False

    def _take(self, number: int, frame: object) -> None:
        self.signals.add(number)
        self._asked.set()
        if self._breaks:
            raise KeyboardInterrupt
