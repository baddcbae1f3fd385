"""Encodings of events: headers, and decoding of EVT 2.0, 2.1, 3.0, DAT and DSEC words."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.base import DataError
from models.common.data_files import unreadable_file
from models.event_seg.formats import encodings, is_hdf5
from models.event_seg.readers.recording import Events

MAX_HEADER_BYTES = 65536
"""Maximum bytes of a header."""
_ALLOWED = "% evt 2.0, 2.1 or 3.0, % format EVT2, EVT21 or EVT3, or the header of a DAT or HDF5 file"


@dataclass(frozen=True)
class Header:
    """Header fields."""

    encoding: str
    """A key of ENCODING_BY_NAME."""
    begin: int
    """Byte offset of the first event."""
    sensor: tuple[int, int] | None
    """Height and width; None: not in the header."""


def read_header(path: Path) -> Header:
    """Read the header of a file. Raises DataError with the byte position of a problem."""
    try:
        with path.open("rb") as file:
            start = file.read(MAX_HEADER_BYTES)
    except OSError as error:
        raise unreadable_file(path, error) from None
    if is_hdf5(start):
        return Header("DSEC", 0, None)
    lines, end = _lines(path, start)
    if not lines:
        raise invalid(path, 0, "has no Prophesee header", _ALLOWED)
    texts = [text for _, text in lines]
    sensor = _sensor(path, "\n".join(texts))
    if path.suffix.lower() == ".dat":
        _check_dat(path, lines, start, end)
        return Header("DAT", end + 2, sensor)
    return Header(_encoding(path, texts, start[end:]), end, sensor)


def invalid(path: Path, at: int, problem: str, allowed: str, fix: str = "") -> DataError:
    """The error for invalid content of a file at byte `at`, from 0."""
    where = f"{path}, byte {at}"
    return DataError(f"'{path.name}' {problem}", where=where, allowed=allowed, fix=fix)


def _lines(path: Path, start: bytes) -> tuple[list[tuple[int, str]], int]:
    """Header lines with their byte positions, without `%`, and the position after the last one.

    Lines begin with "% "; the last one may be `% end`.
    """
    lines: list[tuple[int, str]] = []
    at = 0
    while start[at : at + 1] == b"%" and start[at + 1 : at + 2] in (b" ", b"\n", b"\r"):
        stop = start.find(b"\n", at)
        if stop < 0:
            allowed = f"a header of complete lines, at most {MAX_HEADER_BYTES:,} bytes"
            raise invalid(path, at, "has a header line without an end", allowed)
        lines.append((at, start[at + 1 : stop].decode("latin-1").strip()))
        at = stop + 1
        if lines[-1][1] == "end":
            break
    return lines, at


_DAT_LINES = {r"version (\S+)": ("2", "2.0"), r"data file containing (\w+)": ("cd", "td")}
"""Header lines of a DAT file and their known values: version 1 has other bit fields, and events
of other kinds are no brightness changes. TD is the earlier name of CD."""


_DAT_TYPES = {0x00: "2D", 0x0C: "CD"}
_DAT_BYTES = 8


def _check_dat(path: Path, lines: list[tuple[int, str]], start: bytes, at: int) -> None:
    """Check the lines, and the type and the size of the events, one byte each at `at`.

    Raises DataError.
    """
    for line_at, text in lines:
        for pattern, values in _DAT_LINES.items():
            match = re.match(pattern, text, re.IGNORECASE)
            if match and match[1].lower() not in values:
                allowed = "% Version 2, and % Data file containing CD events"
                raise invalid(path, line_at, f"has an unknown header line: % {text}", allowed)
    names = " or ".join(f"{number} ({name})" for number, name in _DAT_TYPES.items())
    allowed = f"event type {names}, event size {_DAT_BYTES}"
    if len(start) < at + 2:
        raise invalid(path, len(start), "ends before the type and size of its events", allowed)
    kind, size = start[at], start[at + 1]
    if kind not in _DAT_TYPES:
        raise invalid(path, at, f"has events of type {kind}", allowed)
    if size != _DAT_BYTES:
        raise invalid(path, at + 1, f"has events of {size} bytes", allowed)


_TO_DAT = "metavision_file_to_dat -i FILE  converts it to DAT, with Metavision or OpenEB"


def _encoding(path: Path, lines: list[str], words: bytes) -> str:
    """The encoding that a header names; `words`: the first ones of the file. Raises DataError."""
    names = encodings("\n".join(f"% {line}" for line in lines))
    if len(names) > 1:
        problem = f"names several encodings in its header: {', '.join(names)}"
        raise invalid(path, 0, problem, "one encoding in  % evt  and  % format")
    if not names or names[0] not in ("EVT2", "EVT21", "EVT3"):
        name = f"the unknown encoding {names[0]}" if names else "an unknown encoding"
        raise invalid(path, 0, f"has {name}", _ALLOWED, _TO_DAT if names else "")
    order = re.search(r"\bendianness[= ](\w+)", "\n".join(lines), re.IGNORECASE)
    given = order[1].lower() if order else None
    if given not in (None, "little", "legacy"):
        allowed = "endianness little, or legacy of EVT 2.1"
        raise invalid(path, 0, f"has words of endianness {given}", allowed, _TO_DAT)
    if names[0] != "EVT21":
        return names[0]
    is_legacy = _is_legacy(words) if given is None else given == "legacy"
    return "EVT21 legacy" if is_legacy else "EVT21"


def _is_legacy(words: bytes) -> bool:
    """Whether 64-bit words begin with their upper half, as those of the sensor IMX636 do.

    The half with the type has known types only; the other half has any bits.
    """
    halves = np.frombuffer(words[: len(words) // 8 * 8], "<u4").reshape(-1, 2)
    known = np.isin(halves >> 28, (0x0, 0x1, 0x8, 0xA, 0xE, 0xF)).sum(axis=0)
    return bool(known[0] > known[1])


MAX_SIDE = 2**14
"""Pixels of a sensor's side, as many as DAT can tell; damaged files claim any number."""


def _sensor(path: Path, text: str) -> tuple[int, int] | None:
    """Height and width, which a header may have at two places. Raises DataError."""
    sizes = [
        (int(height), int(width))
        for width, height in re.findall(r"^geometry (\d{1,9})x(\d{1,9})", text, re.MULTILINE)
    ]
    height = re.search(r"\bheight[= ](\d{1,9})\b", text, re.IGNORECASE)
    width = re.search(r"\bwidth[= ](\d{1,9})\b", text, re.IGNORECASE)
    if height and width:
        sizes.append((int(height[1]), int(width[1])))
    if len(set(sizes)) > 1:
        shown = " and ".join(f"{height}×{width}" for height, width in sizes)
        raise invalid(path, 0, f"names several sensor sizes in its header: {shown}", "one size")
    if sizes and not (min(sizes[0]) > 0 and max(sizes[0]) <= MAX_SIDE):
        problem = f"has a sensor of {sizes[0][0]}×{sizes[0][1]} pixels in its header"
        raise invalid(path, 0, problem, f"1 to {MAX_SIDE} pixels a side")
    return sizes[0] if sizes else None


State = tuple[int, ...]
"""Decoder state between pieces."""


@dataclass(frozen=True)
class Encoding:
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


def _signed(bit: np.ndarray) -> np.ndarray:
    return bit.astype(np.int8) * np.int8(2) - np.int8(1)


def decode_evt2(words: np.ndarray, state: State) -> tuple[Events, State]:
    """Events of EVT 2.0 words; the state is the last time-high, -1 before the first one.

    Times in microseconds. Events before the first time-high have no time and are dropped. Source:
    Prophesee, EVT 2.0 Format.
    """
    at, t, end = _evt2_times(words, state)
    word = words[at]
    x, y = (word >> 11) & 0x7FF, word & 0x7FF
    return Events(t, x.astype(np.int32), y.astype(np.int32), _signed(word >> 28)), end


def _evt2_times(words: np.ndarray, state: State) -> tuple[np.ndarray, np.ndarray, State]:
    """The words that are events with a known time, their times, and the new state."""
    kind = words >> 28
    is_high = kind == 0x8
    highs = unwrap(words[is_high] & 0x0FFFFFFF, 28, state[0])
    known = np.concatenate((np.array(state, np.int64), highs))
    at = np.flatnonzero(kind <= 0x1)
    high = known[is_high.cumsum()[at]]
    at, high = at[high >= 0], high[high >= 0]
    return at, high << 6 | ((words[at] >> 22) & 0x3F), (int(known[-1]),)


def decode_evt21(words: np.ndarray, state: State) -> tuple[Events, State]:
    """Events of EVT 2.1 words: one of EVT 2.0 and the mask of the 32 pixels from its x on.

    State and times as for EVT 2.0. Source: Prophesee, EVT 2.1 Format.
    """
    heads = words["head"]
    at, t, end = _evt2_times(heads, state)
    index, bit = _bits(words["mask"][at], 32)
    head = heads[at][index]
    x, y = ((head >> 11) & 0x7FF) + bit, head & 0x7FF
    return Events(t[index], x.astype(np.int32), y.astype(np.int32), _signed(head >> 28)), end


def decode_evt3(words: np.ndarray, state: State) -> tuple[Events, State]:
    """Events of EVT 3.0 words; the state is time (-1: unknown), y, x of the next vector, sign.

    Times in microseconds; a time-high with a new value sets the lower bits to 0, a repeated one
    keeps them. Source: Prophesee, EVT 3.0 Format.
    """
    kind, load = words >> 12, words & 0x0FFF
    time, y, x, sign = state

    is_y, is_base = kind == 0x0, kind == 0x3
    times, seen = _times(kind, load, time)
    rows = np.concatenate(([y], load[is_y] & 0x7FF)).astype(np.int32)
    signs = np.concatenate(([sign], load[is_base] >> 11))
    # A vector begins where the previous one ended: at the base plus the lengths since.
    lengths = np.where(kind == 0x4, 12, np.where(kind == 0x5, 8, 0)).astype(np.int64)
    passed = lengths.cumsum() - lengths
    origins = np.concatenate(([x], (load[is_base] & 0x7FF).astype(np.int64) - passed[is_base]))
    count_y, count_base = is_y.cumsum(), is_base.cumsum()

    is_single = kind == 0x2
    at = np.flatnonzero((is_single | (lengths > 0)) & (times[seen] >= 0))
    word, bit = _bits(np.where(is_single, 1, np.where(kind == 0x5, load & 0xFF, load))[at], 16)
    start = np.where(is_single, load & 0x7FF, origins[count_base] + passed)
    own_sign = np.where(is_single, load >> 11, signs[count_base])
    at = at[word]
    events = Events(
        times[seen[at]], (start[at] + bit).astype(np.int32), rows[count_y[at]], _signed(own_sign[at])
    )
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


def check_polarity(path: Path, words: np.ndarray, begin: int) -> None:
    """Check that the polarity of DAT words is 0 or 1; `begin` is their first byte in the file.

    Raises DataError.
    """
    polarity = words["address"] >> 28
    if (polarity > 1).any():
        at = int((polarity > 1).argmax())
        problem = f"has an event of polarity {polarity[at]}"
        allowed = "polarity 0 or 1 in the highest four bits of an event"
        raise invalid(path, begin + at * words.itemsize, problem, allowed)


def decode_dat(words: np.ndarray, state: State) -> tuple[Events, State]:
    """Events of DAT words; the state is the last time, -1 before the first one. Microseconds.

    Source: Prophesee, DAT Format.
    """
    t = unwrap(words["t"], 32, state[0])
    address = words["address"]
    x, y = address & 0x3FFF, (address >> 14) & 0x3FFF
    sign = _signed((address >> 28) & 1)
    events = Events(t, x.astype(np.int32), y.astype(np.int32), sign)
    return events, (int(t[-1]) if len(t) else state[0],)


def decode_dsec(words: np.ndarray, state: State) -> tuple[Events, State]:
    """Events of DSEC, which are stored as they are; there is no state."""
    return Events(words["t"], words["x"], words["y"], _signed(words["p"] > 0)), state


ENCODING_BY_NAME = {
    "EVT2": Encoding(np.dtype("<u4"), (-1,), decode_evt2),
    "EVT3": Encoding(np.dtype("<u2"), (-1, 0, 0, 0), decode_evt3),
    "EVT21": Encoding(np.dtype([("mask", "<u4"), ("head", "<u4")]), (-1,), decode_evt21),
    "EVT21 legacy": Encoding(np.dtype([("head", "<u4"), ("mask", "<u4")]), (-1,), decode_evt21),
    "DSEC": Encoding(np.dtype([("t", "<i8"), ("x", "<i4"), ("y", "<i4"), ("p", "i1")]), (), decode_dsec),
    "DAT": Encoding(np.dtype([("t", "<u4"), ("address", "<u4")]), (-1,), decode_dat),
}
