"""Recording protocol of all readers, its events, and labels of its frames."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from models.base import DataError

LOW, HIGH, DILATION = 100, 200, 5
"""Canny thresholds on 8-bit gradients, and size of the dilation in pixels."""
RECIPE = f"Canny {LOW}/{HIGH} on the frame ending the window, dilated {DILATION}×{DILATION}"


def edges(frame: np.ndarray, factor: int) -> np.ndarray:
    """Edges of `frame` uint8 [height, width], after averaging `factor`² pixels: 0 or 1, uint8.

    Source: Canny, A Computational Approach to Edge Detection, 1986.
    """
    if factor > 1:
        height, width = (n // factor for n in frame.shape)
        cut = frame[: height * factor, : width * factor]
        frame = cv2.resize(cut, (width, height), interpolation=cv2.INTER_AREA)
    thin = cv2.Canny(np.ascontiguousarray(frame), LOW, HIGH)
    return (cv2.dilate(thin, np.ones((DILATION, DILATION), np.uint8)) > 0).view(np.uint8)


def downsample_mask(mask: np.ndarray, factor: int) -> np.ndarray:
    """`mask` of 0, 1 and 255 with `factor`² pixels merged into one.

    The result is foreground if any pixel is, otherwise ignored if any pixel is.
    """
    if factor == 1:
        return np.ascontiguousarray(mask)
    height, width = (n // factor for n in mask.shape)
    cut = mask[: height * factor, : width * factor].reshape(height, factor, width, factor)
    ignored, foreground = (cut == IGNORED).any((1, 3)), (cut == 1).any((1, 3))
    return np.where(foreground, 1, np.where(ignored, IGNORED, 0)).astype(np.uint8)


IGNORED = 255
"""Value of ignored pixels in a mask."""


@dataclass(frozen=True)
class Events:
    """Events in time order: vectors of one length."""

    t: np.ndarray
    """In the unit of the recording: int64 microseconds or float64 seconds."""
    x: np.ndarray
    y: np.ndarray
    p: np.ndarray
    """int8, -1 or +1."""

    def __len__(self) -> int:
        return len(self.t)

    def __getitem__(self, chosen: slice | np.ndarray) -> Events:
        return Events(self.t[chosen], self.x[chosen], self.y[chosen], self.p[chosen])

    def downsampled(self, factor: int, height: int, width: int) -> Events:
        """Events on a grid `factor` times coarser, without those outside the grid."""
        x, y = self.x, self.y
        if factor > 1:
            x, y = x // factor, y // factor
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        if inside.all():
            return Events(self.t, x, y, self.p)
        return Events(self.t[inside], x[inside], y[inside], self.p[inside])


class EventRecording(Protocol):
    """One recording. Reads windows from disk; can be pickled to other processes."""

    name: str
    format: str
    sensor: tuple[int, int]
    """Height and width."""
    sensor_source: str
    """Source of `sensor`."""
    count: int
    """Number of events."""
    second: float
    """One second in the unit of time."""
    unit: str
    """Unit of time and its source."""
    windows: np.ndarray
    """[window, 2]: start and stop of half-open windows, in order, in the dtype of times."""
    labels: str
    """Description of the labels."""

    def events(self, index: int) -> Events:
        """Events of a window. Raises DataError."""

    def label(self, index: int, factor: int) -> np.ndarray:
        """Label at the end of a window, downsampled by `factor`: uint8, 0, 1 or 255 (ignored).

        Raises DataError.
        """


def spans(ends: np.ndarray) -> np.ndarray:
    """Windows between consecutive times, [window, 2]."""
    return np.stack((ends[:-1], ends[1:]), axis=1)


MAX_WINDOWS = 10_000_000
"""Of a recording: 92 hours of 33 ms."""


def check_count(windows: float, path: Path) -> None:
    """Raise DataError for a recording of too many windows: damaged times span centuries."""
    if not windows <= MAX_WINDOWS:
        raise DataError(
            f"the times of '{path.name}' span {windows:,.3g} windows",
            where=str(path),
            allowed=f"at most {MAX_WINDOWS:,} windows of data.window_ms",
        )


def check_ascending(t: np.ndarray, where: str, what: str = "timestamps") -> None:
    """Raises DataError if `t` is not finite or not ascending; `where` names the location."""
    problem = ""
    if t.dtype.kind == "f" and not np.isfinite(t).all():
        problem = "are not finite"
    elif (back := np.flatnonzero(t[1:] < t[:-1])).size:
        problem = f"are not sorted: {t[back[0] + 1]} follows {t[back[0]]}"
    if problem:
        allowed = "numbers, in ascending order"
        raise DataError(f"{what} {problem}", where=where, allowed=allowed)
