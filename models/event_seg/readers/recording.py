"""What every reader gives: a recording, of which windows are read one by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from models.base import DataError

IGNORED = 255
"""The value of a mask where a pixel does not count."""


@dataclass(frozen=True)
class Events:
    """Events in order of time: vectors of one length."""

    t: np.ndarray
    """In the unit and dtype of the recording: int64 microseconds or float64 seconds."""
    x: np.ndarray
    y: np.ndarray
    p: np.ndarray
    """int8, -1 or +1."""

    def __len__(self) -> int:
        return len(self.t)

    def __getitem__(self, chosen: slice | np.ndarray) -> Events:
        return Events(self.t[chosen], self.x[chosen], self.y[chosen], self.p[chosen])

    def downsampled(self, factor: int, height: int, width: int) -> Events:
        """On a grid whose pixels are `factor` wide; what falls outside it is dropped."""
        x, y = self.x, self.y
        if factor > 1:
            x, y = x // factor, y // factor
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        if inside.all():
            return Events(self.t, x, y, self.p)
        return Events(self.t[inside], x[inside], y[inside], self.p[inside])


class Recording(Protocol):
    """One recording. Reads the disk, a window at a time; may be sent to another process."""

    @property
    def name(self) -> str: ...

    @property
    def format(self) -> str: ...

    @property
    def sensor(self) -> tuple[int, int]:
        """Height and width."""

    @property
    def sensor_source(self) -> str:
        """Where `sensor` is told."""

    @property
    def count(self) -> int:
        """How many events it holds."""

    @property
    def second(self) -> float:
        """How much of the unit of time a second is."""

    @property
    def unit(self) -> str:
        """The unit of time, and where it is told."""

    @property
    def windows(self) -> np.ndarray:
        """[window, 2]: start and stop of each, in the dtype of the times; half-open, in order."""

    @property
    def labels(self) -> str:
        """How `label` comes by what it gives; empty: there are no labels."""

    def events(self, index: int) -> Events:
        """The events of a window. Raises DataError."""

    def label(self, index: int, factor: int) -> np.ndarray:
        """What a window ends with, `factor` sensor pixels a pixel: uint8, 0, 1 or 255 (ignored).

        Raises DataError.
        """


def spans(ends: np.ndarray) -> np.ndarray:
    """The windows between instants that follow one another, [window, 2]."""
    return np.stack((ends[:-1], ends[1:]), axis=1)


def check_ascending(t: np.ndarray, where: str, what: str = "timestamps") -> None:
    """Raises DataError if `t` is not finite or steps back; `where` names the file and the place."""
    if t.dtype.kind == "f" and not np.isfinite(t).all():
        raise DataError(
            f"{what} are not finite", where=where, allowed="numbers, in ascending order"
        )
    back = np.flatnonzero(t[1:] < t[:-1])
    if back.size:
        at = int(back[0])
        raise DataError(
            f"{what} are not sorted: {t[at + 1]} follows {t[at]}",
            where=where,
            allowed="numbers, in ascending order",
        )
