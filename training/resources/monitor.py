"""Readings of the machine, taken at intervals in a thread of their own, and the highest of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from training.resources.reading import Reading


class Monitor:
    """Calls `read` every `every_s` seconds off the training thread, and keeps the newest answer."""

    def __init__(self, read: Callable[[], Reading], every_s: float) -> None:
        self._read = read
        self._every_s = every_s
        self._new: Reading | None = None
        self._highest: dict[str, float] = {}
        self.newest: Mapping[str, float] = {}
        """The last reading in percent, by resource; nothing before the first."""
        self._reading = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def highest(self) -> Mapping[str, float]:
        """The most of each resource that any reading found in use, in percent."""
        return dict(self._highest)

    def read(self) -> Reading:
        """A reading taken now, in the thread that asks."""
        with self._reading:
            reading = self._read()
            self.newest = reading.percents()
            for name, percent in self.newest.items():
                self._highest[name] = max(percent, self._highest.get(name, 0.0))
        return reading

    def start(self) -> None:
        """Begin to read; the first reading comes after one interval."""
        # A daemon: a run that fails must not wait for its monitor.
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)
        self._thread.start()

    def take(self) -> Reading | None:
        """The newest reading of the thread, once; None where there was none since the last call."""
        reading, self._new = self._new, None
        return reading

    def stop(self) -> None:
        """End the thread, if there is one, and wait for a reading that is under way."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self._every_s):
            self._new = self.read()
