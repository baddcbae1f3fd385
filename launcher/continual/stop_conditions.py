"""What ends a run that learns on: a signal, the hours it may take, or that nothing comes."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Any

from launcher.base import exit_codes
from launcher.continual.clock import Clock


@dataclass(frozen=True)
class End:
    """Why a run takes in nothing more."""

    reason: str
    exit_code: int = exit_codes.DONE


class Ends:
    """Watches for an end from the moment that it is made."""

    def __init__(self, continual: Any, clock: Clock) -> None:
        """`continual` is that section of the settings."""
        self._clock, self._quiet = clock, continual.quiet_s
        self._hours = continual.max_hours
        self._late_at: float | None = None
        self.wall_at: float | None = None
        """When the hours have passed, in seconds since the epoch; None: there is no such time."""
        if self._hours is not None:
            self._late_at = clock.now() + 3600 * self._hours
            self.wall_at = clock.wall() + 3600 * self._hours

    def why(self, news_at: float) -> End | None:
        """Why to wait no longer, where something new last came at `news_at`; None: wait."""
        if signal.SIGINT in self._clock.signals:
            return End("Ctrl-C was pressed", exit_codes.INTERRUPTED)
        if self._clock.signals:
            return End("a signal asked for it", exit_codes.RUN_AGAIN)
        if self.is_late:
            return self.hours
        if self._quiet is not None and self._clock.now() - news_at >= self._quiet:
            return End(f"no new file came for {self._quiet:g} s")
        return None

    def pause(self, most: float, news_at: float) -> float:
        """How long to sleep, at `most`, so that no end is overslept."""
        now, ends = self._clock.now(), [most]
        if self._quiet is not None:
            ends.append(news_at + self._quiet - now)
        if self._late_at is not None:
            ends.append(self._late_at - now)
        return max(0.0, min(ends))

    @property
    def is_late(self) -> bool:
        """Whether the hours have passed."""
        return self._late_at is not None and self._clock.now() >= self._late_at

    @property
    def hours(self) -> End:
        """The end at which they have."""
        return End(f"{self._hours:g} hours have passed: --max-hours")
