"""Recordings of all formats: events in the cache, windows of them, and labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy import ndarray
from scipy import ndimage

from gearshift.models.base import DataError
from gearshift.models.common.array_file import ArrayFile, Open
from gearshift.models.common.cache import streamed
from gearshift.models.common.data_files import identity
from gearshift.models.event_seg.canny import canny, shrunk, squares

LOW = 100
HIGH = 200
DILATION = 5
"""Canny thresholds on 8-bit gradients, and size of the dilation in pixels."""
RECIPE = f"Canny {LOW}/{HIGH} on the frame ending the window, dilated {DILATION}×{DILATION}"
IGNORED = 255
"""Value of ignored pixels in a mask."""
MAX_SIDE = 2**14
"""Pixels of a sensor's side, as many as DAT can tell; damaged files claim any number."""
MAX_WINDOWS = 10_000_000
"""Of a recording: 92 hours of 33 ms."""
PIECE = 2**17
"""Words or events decoded together."""
Sides = tuple[int, int]
"""Height and width in pixels."""


def edges(
    frame: ndarray,
    factor: int,
) -> ndarray:
    """Edges of `frame` uint8 [height, width], after averaging `factor`² pixels: 0 or 1, uint8."""
    if factor > 1:
        frame = shrunk(frame, factor)
    is_edge = canny(frame, LOW, HIGH)
    return ndimage.maximum_filter(is_edge.view(np.uint8), DILATION, mode="constant")


def downsample_mask(
    mask: ndarray,
    factor: int,
) -> ndarray:
    """`mask` of 0, 1 and 255 with `factor`² pixels merged into one.

    The result is foreground if any pixel is, otherwise ignored if any pixel is.
    """
    pixels = squares(mask, factor)
    foreground = (pixels == 1).any((1, 3))
    ignored = (pixels == IGNORED).any((1, 3))
    return np.select([foreground, ignored], [1, IGNORED]).astype(np.uint8)


@dataclass(frozen=True)
class Events:
    """Events in time order: vectors of one length."""

    t: ndarray
    """In the unit of the recording: int64 microseconds or float64 seconds."""
    x: ndarray
    y: ndarray
    p: ndarray
    """int8, -1 or +1; from a reader 0 and 1, or -1 and 1."""

    def __len__(self) -> int:
        return len(self.t)

    def __getitem__(self, chosen: slice | ndarray) -> Events:
        return Events(
            self.t[chosen],
            self.x[chosen],
            self.y[chosen],
            self.p[chosen],
        )

    def downsampled(
        self,
        factor: int,
        height: int,
        width: int,
    ) -> Events:
        """Events on a grid `factor` times coarser, without those outside the grid."""
        x = self.x // factor
        y = self.y // factor
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        return replace(self, x=x, y=y)[inside]


@dataclass
class EventRecording:
    """One recording; can be pickled to other processes."""

    name: str
    format: str
    sensor: Sides
    """Height and width."""
    sensor_source: str
    windows: ndarray
    """[window, 2]: start and stop of half-open windows, in order, in the dtype of times."""
    second: float
    """One second in the unit of time."""
    labels: str
    """Description of the labels."""
    read: Callable[[], Mapping[str, ndarray]]
    """Gives the arrays t, x, y and p of all events, reads them once; see `cached`."""
    label: Callable[[int, int], ndarray]
    """Gives the label at the end of a window by its number and the factor of downsampling: uint8,
    0, 1 or 255 (ignored). Raises DataError."""

    @property
    def all_events(self) -> Events:
        """Events of the whole recording, mapped from disk."""
        arrays = self.read()
        return Events(**{key: np.asarray(arrays[key]) for key in "txyp"})

    def events(self, index: int) -> Events:
        """Events of a window."""
        events = self.all_events
        start, stop = np.searchsorted(events.t, self.windows[index])
        part = events[start:stop]
        return replace(part, x=part.x.astype(np.int32), y=part.y.astype(np.int32))


@cache
def cached(
    path: Path,
    pieces: Callable[[], Iterator[Events]],
    time: type,
) -> Mapping[str, ndarray]:
    """The arrays t, x, y and p of a file, and its extent, mapped from the cache and kept so.

    The first call decodes the file by `pieces`. Reads and writes the disk. Raises DataError for
    times that do not ascend, for events beyond MAX_SIDE, for polarities that are neither all -1 and
    1 nor all 0 and 1, and for a file without events.
    """

    def write(new: Open) -> None:
        types = {"t": time, "x": np.uint16, "y": np.uint16, "p": np.int8}
        arrays = {key: ArrayFile(new(key), kind) for key, kind in types.items()}
        last: ndarray = np.empty(0, time)
        extent = np.zeros(2)
        codes = [(-1, 1), (0, 1)]
        for events in filter(len, pieces()):
            where = f"{path}, after event {arrays['t'].length}"
            check_ascending(np.concatenate((last, events.t)), where)
            last = events.t[-1:]
            codes = [code for code in codes if np.isin(events.p, code).all()]
            places = np.stack((events.y, events.x))
            extent = np.maximum(extent, places.max(1) + 1)
            # Not a number is in no range.
            if not (codes and places.min() >= 0 and extent.max() <= MAX_SIDE):
                raise DataError(
                    f"events from {places.min()} to {places.max()} pixels, "
                    f"with polarities from {events.p.min()} to {events.p.max()}",
                    where=where,
                    allowed=f"x and y from 0 to {MAX_SIDE - 1}; polarities of 0 and 1, "
                    "or of -1 and 1",
                )
            arrays["p"].append(np.where(events.p > 0, 1, -1))
            for key in "txy":
                arrays[key].append(getattr(events, key))

        if not len(last):
            raise DataError(
                f"'{path.name}' has no events",
                where=str(path),
                allowed="events of brightness changes",
            )
        for array in arrays.values():
            array.finish()
        np.save(new("extent"), extent.astype(np.int64))

    made_from = {"version": 1, "path": str(path.absolute()), "file": identity(path)}
    return streamed("events", made_from, write, path.stat().st_size)


def shape(sides: Sides | ndarray) -> str:
    """Height and width for a message."""
    return f"{sides[0]}×{sides[1]}"


def spans(ends: ndarray) -> ndarray:
    """Windows between consecutive times, [window, 2]."""
    return np.stack((ends[:-1], ends[1:]), axis=1)


def check_ascending(t: ndarray, where: str) -> None:
    """Raises DataError if `t` is not finite or not ascending; `where` names the location."""
    is_wrong = ~np.isfinite(t)
    is_wrong[1:] |= t[1:] < t[:-1]
    if is_wrong.any():
        raise DataError(
            f"times are not finite or not sorted at {t[is_wrong][0]}",
            where=where,
            allowed="numbers, in ascending order",
        )
