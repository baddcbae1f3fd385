"""The end of a continual run: signals, a time limit, or no new files."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from launcher.base import exit_codes
from launcher.base.signals import handling
from launcher.config.feature_settings import Continual
from training.callbacks.preemption import heeded


class Clock:
    """The clock of the machine, and waits that a stop signal ends."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self.signals: set[int] = set()
        """The stop signals that arrived."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def wait(self, seconds: float) -> None:
        """Sleep, until a stop signal at most."""
        self._stop.wait(seconds)

    @contextmanager
    def catching_signals(self) -> Iterator[None]:
        """Record stop signals to this process; only the main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def record(number: int, frame: object) -> None:
            self.signals.add(number)
            self._stop.set()

        with handling(heeded(), record):
            yield


@dataclass(frozen=True)
class EndOfWait:
    """Why a run waits for no further files."""

    reason: str
    exit_code: int = exit_codes.DONE


class StopConditions:
    """The stop conditions of the settings, counted from when this object is made."""

    def __init__(self, settings: Continual, clock: Clock) -> None:
        self._clock, self._quiet_s, self._max_hours = clock, settings.quiet_s, settings.max_hours
        hours = settings.max_hours
        self.deadline = None if hours is None else clock.now() + 3600 * hours
        """The end of `max_hours`; None: no time limit."""

    def check(self, last_change: float) -> EndOfWait | None:
        """Why to stop, if the last new file was seen at `last_change`; None: wait on."""
        if signal.SIGINT in self._clock.signals:
            return EndOfWait("Ctrl-C", exit_codes.INTERRUPTED)
        if self._clock.signals:
            names = ", ".join(signal.Signals(n).name for n in sorted(self._clock.signals))
            return EndOfWait(f"received {names}", exit_codes.RUN_AGAIN)
        if self.deadline_passed:
            return self.time_limit
        if self._quiet_s is not None and self._clock.now() - last_change >= self._quiet_s:
            return EndOfWait(f"no new files for {self._quiet_s:g} s")
        return None

    def wait_s(self, longest: float, last_change: float) -> float:
        """Seconds to wait, at most `longest`, before the next condition can be met."""
        now, ends = self._clock.now(), [longest]
        if self._quiet_s is not None:
            ends.append(last_change + self._quiet_s - now)
        if self.deadline is not None:
            ends.append(self.deadline - now)
        return max(0.0, min(ends))

    @property
    def deadline_passed(self) -> bool:
        """Whether `max_hours` are over."""
        return self.deadline is not None and self._clock.now() >= self.deadline

    @property
    def time_limit(self) -> EndOfWait:
        """The stop at the end of `max_hours`."""
        return EndOfWait(f"reached the time limit of {self._max_hours:g} h: --max-hours")
