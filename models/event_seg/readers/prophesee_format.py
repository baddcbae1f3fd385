"""RAW and DAT files of Prophesee: headers, and decoding of EVT 2.0, 2.1, 3.0 and DAT words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from shlex import quote
from typing import NamedTuple

import numpy as np

from gearshift.models.base import DataError
from gearshift.models.common.data_files import unreadable_file
from gearshift.models.event_seg.formats import encodings
from gearshift.models.event_seg.readers.recording import MAX_SIDE, PIECE, Events, Sides

MAX_HEADER_BYTES = 65536
_ALLOWED = (
    "% evt 2.0, 2.1 or 3.0, % format EVT2, EVT21 or EVT3, or the header of a DAT or HDF5 file"
)
_DAT = "% Version 2, and after the header the bytes 0 (2D) or 12 (CD), and 8 (bytes of an event)"
_TO_DAT = "metavision_file_to_dat -i FILE  converts it to DAT, with Metavision or OpenEB"


class Header(NamedTuple):
    """Header fields."""

    encoding: str
    """A key of ENCODING_BY_NAME."""
    begin: int
    """Byte offset of the first event."""
    sensor: Sides | None
    """Height and width; None: not in the header."""


def read_header(path: Path) -> Header:
    """Read the header of a file. Raises DataError with the byte position of a problem."""
    try:
        with path.open("rb") as file:
            start = file.read(MAX_HEADER_BYTES)
    except OSError as error:
        raise unreadable_file(path, error) from None
    # Lines begin with "% "; the last one may be `% end`.
    lines = re.match(rb"(?:%(?! end\s*\n)[ \r\n][^\n]*\n|%\n)*(?:% end\s*?\n)?", start)
    end = lines.end() if lines else 0
    if not end:
        raise invalid(path, 0, "has no Prophesee header of complete lines", _ALLOWED)
    text = start[:end].decode("latin-1").lower()
    sensor = _sensor(path, text)
    if path.suffix.lower() == ".dat":
        # Version 1 has other bit fields. The words for the kind of events differ: CD, TD, Event2D,
        # N9Chronocam7Event2dE; the bytes do not.
        if (version := _field(r"^% ?version (\S+)", text)) not in ("", "2", "2.0"):
            raise invalid(path, 0, f"has the version {version} in its header", _DAT)
        if start[end : end + 2] not in (b"\x00\x08", b"\x0c\x08"):
            raise invalid(path, end, "has an unknown type or size of events", _DAT)
        return Header("DAT", end + 2, sensor)
    names = encodings(start[:end].decode("latin-1"))
    if len(names) != 1 or names[0] not in ENCODING_BY_NAME:
        problem = f"names the encodings {', '.join(names) or 'none'} in its header"
        raise invalid(path, 0, problem, _ALLOWED, _TO_DAT)
    if (order := _field(r"\bendianness[= ](\w+)", text)) not in ("", "little"):
        raise invalid(path, 0, f"has words of endianness {order}", "endianness little", _TO_DAT)
    return Header(names[0], end, sensor)


def _field(pattern: str, text: str) -> str:
    """The first match in a header; empty if there is none."""
    return next(iter(re.findall(pattern, text, re.MULTILINE)), "")


def invalid(path: Path, at: int, problem: str, allowed: str, fix: str = "") -> DataError:
    """The error for invalid content of a file at byte `at`, from 0."""
    return DataError(
        f"'{path.name}' {problem}", where=f"{path}, byte {at}", allowed=allowed, fix=fix
    )


def _sensor(path: Path, text: str) -> Sides | None:
    """Height and width, which a header may have at two places. Raises DataError."""
    sizes = {
        (int(height), int(width))
        for width, height in re.findall(r"^% ?geometry (\d{1,9})x(\d{1,9})", text, re.MULTILINE)
    }
    height, width = (_field(rf"\b{side}[= ](\d{{1,9}})\b", text) for side in ("height", "width"))
    if height and width:
        sizes.add((int(height), int(width)))
    if len(sizes) > 1 or not all(0 < side <= MAX_SIDE for size in sizes for side in size):
        allowed = f"one size of 1 to {MAX_SIDE} pixels a side"
        raise invalid(path, 0, f"has sensors of {sorted(sizes)} pixels in its header", allowed)
    return sizes.pop() if sizes else None


def raw_pieces(path: Path, header: Header) -> Iterator[Events]:
    """The events of a file, decoded piece by piece. Raises DataError."""
    encoding = ENCODING_BY_NAME[header.encoding]
    size = path.stat().st_size
    width = encoding.word.itemsize
    state = encoding.begin
    if remainder := (size - header.begin) % width:
        problem = f"is truncated: its last word has {remainder} of {width} bytes"
        allowed = f"a multiple of {width} bytes after the header"
        cut = f"copy it again, or cut its rest:  truncate -s -{remainder} {quote(str(path))}"
        raise invalid(path, size - remainder, problem, allowed, cut)
    for at in range(header.begin, size, PIECE * width):
        words = np.fromfile(path, encoding.word, PIECE, offset=at)
        if header.encoding == "DAT" and (wrong := words["address"] >> 29).any():
            first = int(wrong.argmax())
            raise invalid(
                path, at + first * width, "has an event of unknown polarity", "polarity 0 or 1"
            )
        events, state = encoding.decode(words, state)
        yield events


State = tuple[int, ...]
"""Decoder state between pieces."""


class Encoding(NamedTuple):
    """Word type and decoder of an encoding."""

    word: np.dtype
    begin: State
    """State before the first word."""
    decode: Callable[[np.ndarray, State], tuple[Events, State]]
    """Decode words after a state; gives the events and the new state."""


def unwrap(counts: np.ndarray, bits: int, before: int) -> np.ndarray:
    """Unwrap counters of `bits` bits into a monotonic count, int64.

    `before`: last unwrapped count of the previous words, or -1. A step back of more than half the
    range is a wrap-around.
    """
    first = counts[:1].astype(np.int64) if before < 0 else np.array([before % 2**bits])
    counts = counts.astype(np.int64)
    wraps = (np.diff(counts, prepend=first) < -(2 ** (bits - 1))).cumsum()
    return counts + (max(before, 0) >> bits) * 2**bits + wraps * 2**bits


def _events(t: np.ndarray, x: np.ndarray, y: np.ndarray, bit: np.ndarray) -> Events:
    return Events(
        t, x.astype(np.int32), y.astype(np.int32), bit.astype(np.int8) * np.int8(2) - np.int8(1)
    )


def decode_evt2(words: np.ndarray, state: State) -> tuple[Events, State]:
    """Events of EVT 2.0 words; the state is the last time-high, -1 before the first one.

    Times in microseconds. Events before the first time-high have no time and are dropped. Source:
    Prophesee, EVT 2.0 Format.
    """
    at, t, end = _evt2_times(words, state)
    word = words[at]
    return _events(t, (word >> 11) & 0x7FF, word & 0x7FF, word >> 28), end


def _evt2_times(words: np.ndarray, state: State) -> tuple[np.ndarray, np.ndarray, State]:
    """The words that are events with a known time, their times, and the new state."""
    kind = words >> 28
    is_high = kind == 0x8
    highs = unwrap(words[is_high] & 0x0FFFFFFF, 28, state[0])
    known = np.concatenate((np.array(state, np.int64), highs))
    at = np.flatnonzero(kind <= 0x1)
    high = known[is_high.cumsum()[at]]
    at = at[high >= 0]
    high = high[high >= 0]
    return at, high << 6 | ((words[at] >> 22) & 0x3F), (int(known[-1]),)


def decode_evt21(words: np.ndarray, state: State) -> tuple[Events, State]:
    """Events of EVT 2.1 words: one of EVT 2.0 and the mask of the 32 pixels from its x on.

    State and times as for EVT 2.0. Source: Prophesee, EVT 2.1 Format.
    """
    heads = words["head"]
    at, t, end = _evt2_times(heads, state)
    index, bit = _bits(words["mask"][at], 32)
    head = heads[at][index]
    return _events(t[index], ((head >> 11) & 0x7FF) + bit, head & 0x7FF, head >> 28), end


def decode_evt3(words: np.ndarray, state: State) -> tuple[Events, State]:
    """Events of EVT 3.0 words; the state is time (-1: unknown), y, x of the next vector, sign.

    Times in microseconds; a time-high with a new value sets the lower bits to 0, a repeated one
    keeps them. Source: Prophesee, EVT 3.0 Format.
    """
    kind = words >> 12
    load = words & 0x0FFF
    time, y, x, sign = state

    is_y = kind == 0x0
    is_base = kind == 0x3
    times, seen = _times(kind, load, time)
    rows = np.concatenate(([y], load[is_y] & 0x7FF))
    signs = np.concatenate(([sign], load[is_base] >> 11))
    # A vector begins where the previous one ended: at the base plus the lengths since.
    lengths = np.where(kind == 0x4, 12, np.where(kind == 0x5, 8, 0)).astype(np.int64)
    passed = lengths.cumsum() - lengths
    origins = np.concatenate(([x], (load[is_base] & 0x7FF).astype(np.int64) - passed[is_base]))
    count_y = is_y.cumsum()
    count_base = is_base.cumsum()

    is_single = kind == 0x2
    at = np.flatnonzero((is_single | (lengths > 0)) & (times[seen] >= 0))
    word, bit = _bits(np.where(is_single, 1, np.where(kind == 0x5, load & 0xFF, load))[at], 16)
    start = np.where(is_single, load & 0x7FF, origins[count_base] + passed)
    own_sign = np.where(is_single, load >> 11, signs[count_base])
    at = at[word]
    events = _events(times[seen[at]], start[at] + bit, rows[count_y[at]], own_sign[at])
    end = int(origins[-1] + lengths.sum())
    return events, (int(times[-1]), int(rows[-1]), end, int(signs[-1]))


def _times(kind: np.ndarray, load: np.ndarray, before: int) -> tuple[np.ndarray, np.ndarray]:
    """Time before the first word and after each time word; number of time words up to each word."""
    is_high = kind == 0x8
    sets = is_high | (kind == 0x6)
    highs = unwrap(load[is_high], 12, before >> 12)
    known = np.concatenate(([before >> 12], highs))  # -1 >> 12 is -1
    high = known[is_high.cumsum()[sets]]
    keeps = is_high[sets] & (np.diff(high, prepend=before >> 12) == 0)
    lows = np.concatenate(([before & 0xFFF], np.where(is_high[sets], 0, load[sets])))
    last = np.maximum.accumulate(np.where(keeps, 0, np.arange(1, len(lows))))
    times = np.where(high < 0, -1, high << 12 | lows[last])
    return np.concatenate(([before], times)), sets.cumsum()


def _bits(masks: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """For each set bit of masks of `width` bits, lowest first: index of its mask and position."""
    octets = masks.astype(f"<u{width // 8}").view(np.uint8)
    positions = np.flatnonzero(np.unpackbits(octets, bitorder="little"))
    return positions // width, positions % width


def decode_dat(words: np.ndarray, state: State) -> tuple[Events, State]:
    """Events of DAT words; the state is the last time, -1 before the first one. Microseconds.

    Source: Prophesee, DAT Format.
    """
    t = unwrap(words["t"], 32, state[0])
    address = words["address"]
    events = _events(t, address & 0x3FFF, (address >> 14) & 0x3FFF, (address >> 28) & 1)
    return events, (int(t[-1]) if len(t) else state[0],)


ENCODING_BY_NAME = {
    "EVT2": Encoding(np.dtype("<u4"), (-1,), decode_evt2),
    "EVT21": Encoding(np.dtype([("mask", "<u4"), ("head", "<u4")]), (-1,), decode_evt21),
    "EVT3": Encoding(np.dtype("<u2"), (-1, 0, 0, 0), decode_evt3),
    "DAT": Encoding(np.dtype([("t", "<u4"), ("address", "<u4")]), (-1,), decode_dat),
}
