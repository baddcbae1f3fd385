"""Where in a Prophesee file which time is: found in one pass over it, a piece at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from models.base import DataError
from models.common import cache
from models.event_seg.readers import labels
from models.event_seg.readers.hdf5 import Masks, beside
from models.event_seg.readers.prophesee_format import BY_NAME, Header, State, read_header
from models.event_seg.readers.recording import Events, check_ascending, spans

PIECE = 2**17
"""Words that are decoded together."""
_VERSION = 1


@dataclass(frozen=True)
class Index:
    """The pieces of a file."""

    states: np.ndarray
    """[piece, number]: what decoding it begins from."""
    first: np.ndarray
    """[piece]: the first time in it or after it, microseconds."""
    last: np.ndarray
    """[piece]: the last time in it or before it."""
    sensor: tuple[int, int]
    """Height and width that the events reach."""
    events: int
    on: int
    """Events of brighter pixels."""


def build_index(path: Path, header: Header) -> Index:
    """The index of a file; kept in the cache. Reads all of it once, raises DataError."""
    stat = path.stat()
    made_from = {
        "version": _VERSION,
        "path": str(path.absolute()),
        "size": stat.st_size,
        "modified": stat.st_mtime_ns,
    }
    found = cache.arrays("event-index", made_from, lambda: _scan(path, header))
    states, first, last = (np.array(found[name]) for name in ("states", "first", "last"))
    height, width, events, on = map(int, found["totals"])
    return Index(states, first, last, (height, width), events, on)


def _scan(path: Path, header: Header) -> dict[str, np.ndarray]:
    encoding = BY_NAME[header.encoding]
    spare = (path.stat().st_size - header.begin) % encoding.word.itemsize
    if spare:
        raise DataError(
            f"'{path.name}' is truncated: it ends within an event word",
            where=f"{path}, {spare} bytes left over",
            allowed=f"whole words of {encoding.word.itemsize} bytes after the header",
        )
    state = encoding.begin
    states: list[State] = []
    first: list[int] = []
    last: list[int] = []
    totals = np.zeros(4, np.int64)
    for number, words in enumerate(_pieces(path, header)):
        states.append(state)
        events, state = encoding.decode(words, state)
        _check(events, last, f"{path}, words from {number * PIECE}")
        first.append(int(events.t[0]) if len(events) else -1)
        last.append(int(events.t[-1]) if len(events) else (last[-1] if last else -1))
        if len(events):
            totals[:2] = np.maximum(totals[:2], (events.y.max() + 1, events.x.max() + 1))
            totals[2:] += (len(events), (events.p > 0).sum())
    if not totals[2]:
        raise DataError(f"'{path.name}' holds no events", where=str(path), allowed="change events")
    for at in range(len(first) - 1, -1, -1):  # a piece without events: the next one's
        if first[at] < 0:
            first[at] = first[at + 1] if at + 1 < len(first) else last[-1] + 1
    named = {"states": states, "first": first, "last": last}
    return {key: np.array(value, np.int64) for key, value in named.items()} | {"totals": totals}


def _check(events: Events, last: list[int], where: str) -> None:
    known = [last[-1]] if last else []
    check_ascending(np.concatenate((np.array(known, np.int64), events.t)), where)


def _pieces(path: Path, header: Header) -> Iterator[np.ndarray]:
    number = 0
    while len(words := read_piece(path, header, number)):
        yield words
        number += 1


def read_piece(path: Path, header: Header, number: int) -> np.ndarray:
    """The words of one piece. Reads them, and no more."""
    word = BY_NAME[header.encoding].word
    offset = header.begin + number * PIECE * word.itemsize
    return np.fromfile(path, word, PIECE, offset=offset)


def read_events(path: Path, header: Header, index: Index, start: int, stop: int) -> Events:
    """The events of [start, stop), microseconds. Reads the pieces that hold them."""
    decode = BY_NAME[header.encoding].decode
    low = int(np.searchsorted(index.last, start, side="left"))
    high = int(np.searchsorted(index.first, stop, side="left"))
    found = [
        decode(read_piece(path, header, number), _state(index, number))[0]
        for number in range(low, high)
    ]
    parts = [e[slice(*np.searchsorted(e.t, (start, stop), side="left"))] for e in found]
    if len(parts) == 1:
        return parts[0]
    empty = Events(*(np.empty(0, kind) for kind in (np.int64, np.int32, np.int32, np.int8)))
    parts = parts or [empty]
    return Events(*(np.concatenate([getattr(e, key) for e in parts]) for key in "txyp"))


def _state(index: Index, number: int) -> State:
    return tuple(map(int, index.states[number]))


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
    """See models/event_seg/readers/recording.py. Times are microseconds of the camera."""

    second = 1e6
    unit = "µs, by the format"

    def __init__(self, path: Path, name: str, told: Told) -> None:
        """Reads the file once for its index, and the times of its masks. Raises DataError."""
        self.path, self.name = path, name
        self.header = read_header(path)
        self.format = _FORMATS[self.header.encoding]
        self.index = build_index(path, self.header)
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
        return read_events(self.path, self.header, self.index, start, stop)

    def label(self, index: int, factor: int) -> np.ndarray:
        """The mask that ends a window. Raises DataError."""
        assert self.masks is not None, "a recording without labels is asked for none"
        return labels.coarser(self.masks.read(index + self._first_mask), factor)


def _size(sensor: tuple[int, int]) -> str:
    return f"{sensor[0]}×{sensor[1]}"
