"""MVSEC recordings: HDF5 files with events and frames of a DAVIS camera."""

from __future__ import annotations

from bisect import bisect_left
from pathlib import Path

import h5py
import numpy as np

from models.base import DataError
from models.event_seg.readers.hdf5 import Hdf5
from models.event_seg.readers.recording import RECIPE, Events, check_ascending, check_count, edges, spans

GROUP = "davis/left"
ALLOWED = (
    f"{GROUP} with events float64 [event, 4] of x, y, t, polarity, image_raw [frame, height, "
    "width] uint8, image_raw_ts and image_raw_event_inds [frame]"
)
MARGIN = 1024
"""Events read on either side of those that the frame indices name."""
_SEEN = 2**18
"""Events checked for the encoding of polarity."""


class MvsecRecording:
    """MVSEC recording; implements Recording. Times are float64 seconds, usually since 1970.

    Source: Zhu et al., The Multi Vehicle Stereo Event Camera Dataset, 2018.
    """

    format = "MVSEC HDF5"
    sensor_source = "frames"
    second = 1.0
    unit = "s, by the format"
    labels = RECIPE

    def __init__(
        self, path: Path, name: str, window_ms: float | None = None, sensor: tuple[int, int] | None = None
    ) -> None:
        """Read times and event indices of frames, or with `window_ms` the times of windows.

        `sensor`: height and width of a file without frames. Raises DataError.
        """
        self.name = name
        self._hdf5 = Hdf5(path)
        events = self._array("events", 2)
        if events.shape[1] != 4 or events.dtype != np.float64 or not len(events):
            message = f"'{path.name}' does not have the MVSEC layout: events {events.dtype} {events.shape}"
            raise DataError(message, where=str(path), allowed=ALLOWED)
        self._at: np.ndarray | None = None
        if sensor is None or self._hdf5.has(f"{GROUP}/image_raw"):
            frames = self._array("image_raw", 3)
            sensor = int(frames.shape[1]), int(frames.shape[2])
        self.sensor, self.count = sensor, len(events)
        self.windows = self._frame_windows() if window_ms is None else self._equal_windows(window_ms)
        self._off = _polarity(self._hdf5, events)

    def _frame_windows(self) -> np.ndarray:
        path, frames = self._hdf5.path, self._array("image_raw", 3)
        times, at = self._numbers("image_raw_ts"), self._numbers("image_raw_event_inds")
        self._at = np.nan_to_num(at).clip(0, self.count).astype(np.int64)
        if frames.dtype != np.uint8:
            message = f"'{path.name}' does not have the MVSEC layout: image_raw {frames.dtype}"
            raise DataError(message, where=str(path), allowed=ALLOWED)
        if not len(frames) == len(times) == len(at) >= 2:
            message = f"'{path.name}' has {len(frames)} frames, {len(times)} times, {len(at)} indices"
            allowed = "at least 2 frames with one time and one index each"
            raise DataError(message, where=str(path), allowed=allowed)
        check_ascending(times, f"{path}: image_raw_ts", "times of frames")
        return spans(times)

    def _equal_windows(self, window_ms: float) -> np.ndarray:
        path, events = self._hdf5.path, self._array("events", 2)
        ends = self._hdf5.read(events, np.s_[:: max(1, len(events) - 1), 2])
        check_ascending(ends, f"{path}: {GROUP}/events, the first and the last")
        count = (ends[-1] - ends[0]) * 1e3 / window_ms
        check_count(count, path)
        return spans(ends[0] + np.arange(int(count) + 1) * window_ms / 1e3)

    def _bounds(self, index: int) -> tuple[int, int]:
        """The first event of a window and its end: by the frames, or by bisection."""
        if self._at is not None:
            return int(self._at[index]), int(self._at[index + 1])
        events = self._array("events", 2)

        def time(row: int) -> float:
            return float(self._hdf5.read(events, np.s_[row, 2]))

        start, stop = self.windows[index].tolist()
        low = bisect_left(range(len(events)), start, key=time)
        return low, bisect_left(range(len(events)), stop, lo=low, key=time)

    def _array(self, name: str, axes: int) -> h5py.Dataset:
        return self._hdf5.dataset(f"{GROUP}/{name}", ALLOWED, axes)

    def _numbers(self, name: str) -> np.ndarray:
        values = self._hdf5.read(self._array(name, 1), slice(None))
        if values.dtype.kind not in "iuf":
            message = f"'{GROUP}/{name}' of '{self._hdf5.path.name}' is of type {values.dtype}"
            raise DataError(message, where=str(self._hdf5.path), allowed=ALLOWED)
        return values.astype(np.float64)

    def events(self, index: int) -> Events:
        """Events of a window. Reads them and a margin; raises DataError."""
        events = self._array("events", 2)
        start, stop = self.windows[index]
        margin, total = MARGIN, len(events)
        first, last = self._bounds(index)
        while True:
            low = int(np.clip(first - margin, 0, total))
            high = int(np.clip(last + margin, low, total))
            rows = self._hdf5.read(events, np.s_[low:high])
            times = rows[:, 2]
            is_begun = low == 0 or (len(times) and times[0] < start)
            is_done = high == total or (len(times) and times[-1] >= stop)
            if is_begun and is_done:
                break
            margin *= 4  # the indices may follow a clock with an offset
        check_ascending(times, f"{self._hdf5.path}: {GROUP}/events {low} to {high}")
        rows = rows[slice(*np.searchsorted(times, (start, stop)))]
        return _checked(rows, self._off, self.sensor, f"{self._hdf5.path}: {GROUP}/events, after event {low}")

    def label(self, index: int, factor: int) -> np.ndarray:
        """Edges of the frame at the end of a window. Raises DataError."""
        frame = self._hdf5.read(self._array("image_raw", 3), index + 1)
        return edges(frame, factor)


def _polarity(hdf5: Hdf5, events: h5py.Dataset) -> float:
    """Value of a darker pixel: -1 or 0."""
    values = set(np.unique(hdf5.read(events, np.s_[:_SEEN, 3])).tolist())
    if not values <= {-1.0, 1.0} and not values <= {0.0, 1.0}:
        raise DataError(
            f"polarities are {', '.join(f'{p:g}' for p in sorted(values)[:5])}",
            where=f"{hdf5.path}: {GROUP}/events",
            allowed="-1 and 1, or 0 and 1",
        )
    return 0.0 if 0.0 in values else -1.0


def _checked(rows: np.ndarray, off: float, sensor: tuple[int, int], where: str) -> Events:
    x, y, t, p = rows.T
    height, width = sensor
    is_inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    is_valid = np.isfinite(t) & is_inside & ((p == 1) | (p == off))
    if not is_valid.all():
        invalid = rows[~is_valid][0]
        raise DataError(
            f"an event is {', '.join(f'{n:.10g}' for n in invalid)} (x, y, t, polarity)",
            where=where,
            allowed=f"x from 0 to {width - 1}, y from 0 to {height - 1}, finite times, polarity {off:g} or 1",
        )
    x, y = np.floor(x).astype(np.int32), np.floor(y).astype(np.int32)
    return Events(t, x, y, np.where(p == 1, 1, -1).astype(np.int8))
