"""Recordings without frames (Prophesee RAW and DAT, DSEC), read through an index of times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path
from shlex import quote

import numpy as np

from models.base import DataError
from models.common import cache
from models.common.data_files import identity
from models.event_seg.formats import BY_ENCODING
from models.event_seg.readers.hdf5 import ALLOWED as MASKS_ALLOWED
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
from models.event_seg.readers.recording import Events, check_ascending, check_count, downsample_mask, spans

NAMES = ("t", "x", "y", "p")
ALLOWED = (
    "whole numbers events/t [event] in microseconds, events/x, events/y and events/p [event] of 0 "
    "and 1, and t_offset in microseconds"
)


def read_words(path: Path, start: int, count: int) -> np.ndarray:
    """Events `start` to `start` + `count` as words; times with the offset. Raises DataError.

    Source: Gehrig et al., DSEC: A Stereo Event Camera Dataset for Driving Scenarios, 2021.
    """

    def check(problem: str, is_valid: bool) -> None:
        if not is_valid:
            raise DataError(f"'{path.name}' has {problem}", where=str(path), allowed=ALLOWED)

    file = Hdf5(path)
    arrays = {name: file.dataset(f"events/{name}", ALLOWED, 1) for name in NAMES}
    lengths = ", ".join(f"{len(array):,} {name}" for name, array in arrays.items())
    check(f"arrays of several lengths: {lengths}", len({*map(len, arrays.values())}) == 1)
    words = np.empty(max(0, min(count, len(arrays["t"]) - start)), ENCODING_BY_NAME["DSEC"].word)
    for name, array in arrays.items():
        check(f"events/{name} of type {array.dtype}", array.dtype.kind in "iub")
        values = file.read(array, np.s_[start : start + len(words)])
        if len(values):
            low, high = int(values.min()), int(values.max())
            limits = {"t": (0, 2**62), "p": (-1, 1)}.get(name, (0, MAX_SIDE - 1))
            is_valid = low >= limits[0] and high <= limits[1]
            check(f"events/{name} from {low} to {high}", is_valid)
        words[name] = values
    if len(words) and file.has("t_offset"):
        array = file.dataset("t_offset", ALLOWED, 0)
        check(f"a t_offset of type {array.dtype}", array.dtype.kind in "iu")
        offset = int(file.read(array, ()))
        check(f"a t_offset of {offset}", 0 <= offset < 2**62)
        words["t"] += offset
    return words


PIECE = 2**17
"""Words decoded together."""
_VERSION = 4


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
        back = times[1:] < times[:-1]
        at = int(back.argmax()) + 1 - (len(times) - len(events)) if back.any() else 0
        unit = "event" if is_dsec else "byte"
        check_ascending(times, f"{path}, from {unit} {begin + at * step}")
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


class RawRecording:
    """A recording of these encodings; implements Recording. Times are microseconds of its clock."""

    second = 1e6
    unit = "µs, by the format"

    def __init__(
        self,
        path: Path,
        name: str,
        window_ms: float | None = None,
        sensor: Sequence[int] | None = None,
        has_labels: bool = True,
    ) -> None:
        """Read the index and the times of the masks. Raises DataError.

        `sensor`: height and width of a file that lacks them. Unless `has_labels`, masks beside the
        file are not read, and `window_ms` cuts the recording from its first event on.
        """
        self.path, self.name = path, name
        self.header = read_header(path)
        self.format = BY_ENCODING[self.header.encoding.split()[0]]
        self.index = build_index(path, self.header)
        self.count = self.index.events
        self.masks = _masks(path) if has_labels else None
        self.labels = f"masks of {mask_path(path).name}"
        self.sensor, self.sensor_source = self._sensor(sensor)
        self.windows, self._first_mask = self._windows(window_ms)

    def _sensor(self, given: Sequence[int] | None) -> tuple[tuple[int, int], str]:
        extent, sensor, source = self.index.sensor, self.index.sensor, "events"
        if given is not None:
            sensor, source = (given[0], given[1]), "data.sensor"
        elif self.header.sensor:
            sensor, source = self.header.sensor, "header"
        elif self.masks:
            sensor, source = self.masks.sensor, "masks"
        if self.masks and self.masks.sensor != sensor:
            size = _size(self.masks.sensor)
            message = f"masks are {size}, the sensor is {_size(sensor)} ({source})"
            where, allowed = str(mask_path(self.path)), "masks of the sensor size"
            raise DataError(message, where=where, allowed=allowed)
        if max(extent) > MAX_SIDE:
            allowed = f"events of a sensor, at most {MAX_SIDE} pixels a side"
            message = f"events extend to {_size(extent)} pixels"
            raise DataError(message, where=str(self.path), allowed=allowed)
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
            assert window_ms is not None, "without masks there is a length"
            length = max(1, int(1e3 * window_ms))
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


def _masks(path: Path) -> Masks:
    """The masks beside a recording. Raises DataError."""
    beside = mask_path(path)
    if not beside.exists():
        message, allowed = f"'{path.name}' has no labels", f"masks in {beside.name}: {MASKS_ALLOWED}"
        raise DataError(message, where=str(path), allowed=allowed)
    return Masks(beside)


def _size(sensor: tuple[int, int]) -> str:
    return f"{sensor[0]}×{sensor[1]}"
