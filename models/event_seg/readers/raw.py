"""Prophesee recordings: RAW in EVT 2.0 and EVT 3.0, and DAT."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from models.base import DataError
from models.event_seg import labels
from models.event_seg.readers import header as headers
from models.event_seg.readers import raw_index
from models.event_seg.readers.masks import Masks, beside
from models.event_seg.recording import Events, spans

SHORTEST = 30
"""Windows that a recording under a second is cut into."""
_FORMATS = {
    "EVT2": "Prophesee RAW EVT 2.0",
    "EVT3": "Prophesee RAW EVT 3.0",
    "DAT": "Prophesee DAT",
}


class Told(Protocol):
    """What a person may say of recordings that do not tell it themselves: settings."""

    @property
    def window_ms(self) -> float | None: ...

    @property
    def sensor(self) -> Sequence[int] | None: ...


class RawRecording:
    """See models/event_seg/recording.py. Times are microseconds of the camera."""

    second = 1e6
    unit = "µs, by the format"

    def __init__(self, path: Path, name: str, told: Told) -> None:
        """Reads the file once for its index, and the times of its masks. Raises DataError."""
        self.path, self.name = path, name
        self.header = headers.read(path)
        self.format = _FORMATS[self.header.encoding]
        self.index = raw_index.build(path, self.header)
        self.count = self.index.events
        self.masks = Masks(beside(path)) if beside(path).exists() else None
        self.labels = f"masks of {beside(path).name}" if self.masks else ""
        self.sensor, self.sensor_source = self._sensor(told.sensor)
        self.windows, self._first_mask = self._windows(told.window_ms)

    def _sensor(self, told: Sequence[int] | None) -> tuple[tuple[int, int], str]:
        reached = self.index.sensor
        from_masks = self.masks.sensor if self.masks else None
        own = None if told is None else (told[0], told[1])
        named = (own, "data.sensor"), (self.header.sensor, "header"), (from_masks, "masks")
        sensor, source = next(((s, where) for s, where in named if s), (reached, "events"))
        if self.masks and self.masks.sensor != sensor:
            raise DataError(
                f"masks are {_size(self.masks.sensor)}, the sensor is {_size(sensor)} ({source})",
                where=str(beside(self.path)),
                allowed="masks as large as the sensor",
            )
        if reached[0] > sensor[0] or reached[1] > sensor[1]:
            raise DataError(
                f"events reach {_size(reached)}, the sensor is {_size(sensor)} ({source})",
                where=str(self.path),
                allowed="events on the sensor",
                fix=f"--set data.sensor=[{reached[0]},{reached[1]}]",
            )
        return sensor, source

    def _windows(self, window_ms: float | None) -> tuple[np.ndarray, int]:
        """The windows, and the number of the mask that ends the first one."""
        first, last = int(self.index.first[0]), int(self.index.last[-1])
        if self.masks is None:
            length = 1e6 / 30 if window_ms is None else 1e3 * window_ms
            if window_ms is None:
                length = min(length, (last - first) / SHORTEST)
            length = max(1, int(length))
            return spans(np.arange(first, last + 2, length, dtype=np.int64)), 0
        times = self.masks.times
        if times[0] > last or times[-1] <= first:
            raise DataError(
                f"masks lie at {times[0]} to {times[-1]} µs, events at {first} to {last} µs",
                where=str(beside(self.path)),
                allowed="times of the recording's own clock",
            )
        if window_ms is None:
            return spans(times), 1
        return np.stack((times - max(1, int(1e3 * window_ms)), times), axis=1), 0

    def events(self, index: int) -> Events:
        """The events of a window. Reads the pieces of the file that hold them."""
        start, stop = map(int, self.windows[index])
        return raw_index.between(self.path, self.header, self.index, start, stop)

    def label(self, index: int, factor: int) -> np.ndarray:
        """The mask that ends a window. Raises DataError."""
        assert self.masks is not None, "a recording without labels is asked for none"
        return labels.coarser(self.masks.read(index + self._first_mask), factor)


def _size(sensor: tuple[int, int]) -> str:
    return f"{sensor[0]}×{sensor[1]}"
