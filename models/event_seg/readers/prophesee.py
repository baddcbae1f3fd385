"""Recordings without frames (Prophesee RAW and DAT, DSEC), read through an index of times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path
from shlex import quote
from typing import Protocol

import numpy as np

from models.base import DataError
from models.common import cache
from models.common.data_files import identity
from models.event_seg.formats import BY_ENCODING
from models.event_seg.readers.hdf5 import Hdf5, Masks, mask_path
from models.event_seg.readers.prophesee_format import (
    ENCODING_BY_NAME,
    MAX_SIDE,
    Header,
    State,
    check_polarity,
    invalid,
    read_header,
)
from models.event_seg.readers.recording import (
    Events,
    check_ascending,
    check_count,
    downsample_mask,
    spans,
)

NAMES = ("t", "x", "y", "p")
ALLOWED = (
    "whole numbers events/t [event] in microseconds, events/x, events/y and events/p [event] of 0 "
    "and 1, and t_offset in microseconds"
)


def read_words(path: Path, start: int, count: int) -> np.ndarray:
    """Events `start` to `start` + `count` as words; times with the offset. Raises DataError.

    Source: Gehrig et al., DSEC: A Stereo Event Camera Dataset for Driving Scenarios, 2021.
    """
    file = Hdf5(path)
    arrays = {name: file.dataset(f"events/{name}", ALLOWED, 1) for name in NAMES}
    if len({len(array) for array in arrays.values()}) > 1:
        lengths = ", ".join(f"{len(array):,} {name}" for name, array in arrays.items())
        raise _invalid(path, f"has arrays of several lengths: {lengths}")
    words = np.empty(max(0, min(count, len(arrays["t"]) - start)), ENCODING_BY_NAME["DSEC"].word)
    for name, array in arrays.items():
        if array.dtype.kind not in "iub":
            raise _invalid(path, f"has events/{name} of type {array.dtype}")
        values = file.read(array, np.s_[start : start + len(words)])
        _check(path, name, values)
        words[name] = values
    if len(words) and file.has("t_offset"):
        words["t"] += _offset(file, path)
    return words


def _check(path: Path, name: str, values: np.ndarray) -> None:
    if not len(values):
        return
    limits = {"t": (0, 2**62), "p": (-1, 1)}.get(name, (0, MAX_SIDE - 1))
    low, high = int(values.min()), int(values.max())
    if low < limits[0] or high > limits[1]:
        raise _invalid(path, f"has events/{name} from {low} to {high}")


def _offset(file: Hdf5, path: Path) -> int:
    array = file.dataset("t_offset", ALLOWED, 0)
    if array.dtype.kind not in "iu":
        raise _invalid(path, f"has a t_offset of type {array.dtype}")
    offset = int(file.read(array, ()))
    if not 0 <= offset < 2**62:
        raise _invalid(path, f"has a t_offset of {offset}")
    return offset


def _invalid(path: Path, problem: str) -> DataError:
    return DataError(f"'{path.name}' {problem}", where=str(path), allowed=ALLOWED)


PIECE = 2**17
"""Words decoded together."""
_VERSION = 3


@dataclass(frozen=True)
class PieceIndex:
    """Pieces of a file with their decoder states and times."""

    states: np.ndarray
    """[piece, number]: decoder state at the start of the piece."""
    first: np.ndarray
    """[piece]: first time in the piece or after it, microseconds."""
    last: np.ndarray
    """[piece]: last time in the piece or before it, microseconds."""
    sensor: tuple[int, int]
    """Height and width of the extent of the events."""
    events: int
    on: int
    """Number of events with positive polarity."""


def build_index(path: Path, header: Header) -> PieceIndex:
    """Index of a file, from the cache or from one pass over the file. Raises DataError."""
    made_from = {"version": _VERSION, "path": str(path.absolute()), "file": identity(path)}
    arrays = cache.arrays("event-index", made_from, lambda: _scan(path, header))
    states, first, last = (np.array(arrays[name]) for name in ("states", "first", "last"))
    height, width, events, on = map(int, arrays["totals"])
    return PieceIndex(states, first, last, (height, width), events, on)


def _scan(path: Path, header: Header) -> dict[str, np.ndarray]:
    encoding, is_dat = ENCODING_BY_NAME[header.encoding], header.encoding == "DAT"
    is_dsec = header.encoding == "DSEC"
    size, width = path.stat().st_size, 1 if is_dsec else encoding.word.itemsize
    if remainder := (size - header.begin) % width:
        problem = f"is truncated: its last word has {remainder} of {width} bytes"
        allowed = f"a multiple of {width} bytes after the header"
        cut = f"copy it again, or cut its rest:  truncate -s -{remainder} {quote(str(path))}"
        raise invalid(path, size - remainder, problem, allowed, cut)
    state = encoding.begin
    states: list[State] = []
    first: list[int] = []
    last: list[int] = []
    totals = np.zeros(4, np.int64)
    pieces = (read_piece(path, header, number) for number in count())
    for number, words in enumerate(takewhile(len, pieces)):
        states.append(state)
        begin = header.begin + number * PIECE * width
        if is_dat:
            check_polarity(path, words, begin)
        events, state = encoding.decode(words, state)
        times = np.concatenate((np.array(last[-1:], np.int64), events.t))
        step = width if is_dat or is_dsec else 0  # only there each word is an event
        unit = "event" if is_dsec else "byte"
        _check_order(path, times, begin - step * (len(times) - len(events)), step, unit)
        first.append(int(events.t[0]) if len(events) else -1)
        last.append(int(events.t[-1]) if len(events) else (last[-1] if last else -1))
        if len(events):
            totals[:2] = np.maximum(totals[:2], (events.y.max() + 1, events.x.max() + 1))
            totals[2:] += (len(events), (events.p > 0).sum())
    if not totals[2]:
        raise DataError(
            f"'{path.name}' has no events", where=str(path), allowed="events of brightness changes"
        )
    for at in range(len(first) - 1, -1, -1):  # a piece without events takes the time of the next
        if first[at] < 0:
            first[at] = first[at + 1] if at + 1 < len(first) else last[-1] + 1
    named = {"states": states, "first": first, "last": last}
    return {key: np.array(value, np.int64) for key, value in named.items()} | {"totals": totals}


def _check_order(path: Path, times: np.ndarray, begin: int, step: int, unit: str) -> None:
    """`begin` is the `unit` of the first time, `step` those to the next one; 0: unknown."""
    back = times[1:] < times[:-1]
    at = int(back.argmax()) + 1 if back.any() else 0
    check_ascending(times, f"{path}, from {unit} {begin + at * step}")


def read_piece(path: Path, header: Header, number: int) -> np.ndarray:
    """Words of one piece; reads nothing else. Raises DataError."""
    if header.encoding == "DSEC":
        return read_words(path, number * PIECE, PIECE)
    word = ENCODING_BY_NAME[header.encoding].word
    offset = header.begin + number * PIECE * word.itemsize
    return np.fromfile(path, word, PIECE, offset=offset)


def read_events(path: Path, header: Header, index: PieceIndex, start: int, stop: int) -> Events:
    """Events of [start, stop), microseconds; reads the pieces that contain them."""
    decode = ENCODING_BY_NAME[header.encoding].decode
    low = int(np.searchsorted(index.last, start, side="left"))
    high = int(np.searchsorted(index.first, stop, side="left"))
    pieces = [
        decode(read_piece(path, header, number), tuple(map(int, index.states[number])))[0]
        for number in range(low, high)
    ]
    parts = [e[slice(*np.searchsorted(e.t, (start, stop), side="left"))] for e in pieces]
    if len(parts) == 1:
        return parts[0]
    empty = Events(*(np.empty(0, kind) for kind in (np.int64, np.int32, np.int32, np.int8)))
    parts = parts or [empty]
    return Events(*(np.concatenate([getattr(e, key) for e in parts]) for key in "txyp"))


SHORT_WINDOWS = 30
"""Number of windows of a recording shorter than one second."""


class RecordingSettings(Protocol):
    """Settings of recordings whose files lack them."""

    @property
    def window_ms(self) -> float | None: ...

    @property
    def sensor(self) -> Sequence[int] | None: ...


class RawRecording:
    """A recording of these encodings; implements Recording. Times are microseconds of its clock."""

    second = 1e6
    unit = "µs, by the format"

    def __init__(
        self, path: Path, name: str, settings: RecordingSettings, has_labels: bool = True
    ) -> None:
        """Read the index and the times of the masks. Raises DataError.

        Unless `has_labels`, masks beside the file are not read.
        """
        self.path, self.name = path, name
        self.header = read_header(path)
        self.format = BY_ENCODING[self.header.encoding.split()[0]]
        self.index = build_index(path, self.header)
        self.count = self.index.events
        self.masks = Masks(mask_path(path)) if has_labels and mask_path(path).exists() else None
        self.labels = f"masks of {mask_path(path).name}" if self.masks else ""
        self.sensor, self.sensor_source = self._sensor(settings.sensor)
        self.windows, self._first_mask = self._windows(settings.window_ms)

    def _sensor(self, given: Sequence[int] | None) -> tuple[tuple[int, int], str]:
        extent = self.index.sensor
        from_masks = self.masks.sensor if self.masks else None
        from_settings = None if given is None else (given[0], given[1])
        first_sources = (from_settings, "data.sensor"), (self.header.sensor, "header")
        sources = (*first_sources, (from_masks, "masks"))
        sensor, source = next(((s, where) for s, where in sources if s), (extent, "events"))
        if self.masks and self.masks.sensor != sensor:
            raise DataError(
                f"masks are {_size(self.masks.sensor)}, the sensor is {_size(sensor)} ({source})",
                where=str(mask_path(self.path)),
                allowed="masks of the sensor size",
            )
        if max(extent) > MAX_SIDE:
            raise DataError(
                f"events extend to {_size(extent)} pixels",
                where=str(self.path),
                allowed=f"events of a sensor, at most {MAX_SIDE} pixels a side",
            )
        if extent[0] > sensor[0] or extent[1] > sensor[1]:
            raise DataError(
                f"events extend to {_size(extent)}, the sensor is {_size(sensor)} ({source})",
                where=str(self.path),
                allowed="events within the sensor",
                fix=f"--set 'data.sensor=[{extent[0]},{extent[1]}]'",
            )
        return sensor, source

    def _windows(self, window_ms: float | None) -> tuple[np.ndarray, int]:
        """Windows, and the number of the mask at the end of the first window."""
        first, last = int(self.index.first[0]), int(self.index.last[-1])
        if self.masks is None:
            length = 1e6 / 30 if window_ms is None else 1e3 * window_ms
            if window_ms is None:
                length = min(length, (last - first) / SHORT_WINDOWS)
            length = max(1, int(length))
            check_count((last + 1 - first) / length, self.path)
            return spans(np.arange(first, last + 2, length, dtype=np.int64)), 0
        times = self.masks.times
        if times[0] > last or times[-1] <= first:
            raise DataError(
                f"masks span {times[0]} to {times[-1]} µs, events span {first} to {last} µs",
                where=str(mask_path(self.path)),
                allowed="mask times in the clock of the recording",
            )
        if window_ms is None:
            return spans(times), 1
        return np.stack((times - max(1, int(1e3 * window_ms)), times), axis=1), 0

    def events(self, index: int) -> Events:
        start, stop = map(int, self.windows[index])
        return read_events(self.path, self.header, self.index, start, stop)

    def label(self, index: int, factor: int) -> np.ndarray:
        """Mask at the end of a window. Raises DataError."""
        assert self.masks is not None, "the recording has labels"
        return downsample_mask(self.masks.read(index + self._first_mask), factor)


def _size(sensor: tuple[int, int]) -> str:
    return f"{sensor[0]}×{sensor[1]}"
