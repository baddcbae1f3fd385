"""How full the machine is, was at most, and how near to its limits: what people are shown of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from training.resources.monitor import Monitor

_NEAR = 5.0
"""Percent below a limit from which on it is worth a line."""


@dataclass(frozen=True)
class Near:
    """A resource that came near to its limit, or over it."""

    name: str
    highest: float
    limit: float

    @property
    def is_over(self) -> bool:
        """Whether it was exceeded."""
        return self.highest > self.limit


class Gauges:
    """What a monitor read, in percent by resource; nothing where there is no monitor."""

    def __init__(
        self, monitor: Monitor | None = None, limits: Mapping[str, float | None] | None = None
    ) -> None:
        self._monitor = monitor
        self._limits = limits or {}

    @property
    def newest(self) -> Mapping[str, float]:
        """The last reading."""
        return self._monitor.newest if self._monitor else {}

    @property
    def highest(self) -> Mapping[str, float]:
        """The most that any reading found."""
        return self._monitor.highest if self._monitor else {}

    def near_limits(self) -> list[Near]:
        """What came within five percent of its limit."""
        found = [(name, value, self._limits.get(name)) for name, value in self.highest.items()]
        return [
            Near(name, value, limit)
            for name, value, limit in found
            if limit is not None and value > limit - _NEAR
        ]


def named(percents: Mapping[str, float]) -> dict[str, float]:
    """Percents by the names they have in files: `ram_percent`."""
    return {f"{name}_percent": round(value, 1) for name, value in percents.items()}
