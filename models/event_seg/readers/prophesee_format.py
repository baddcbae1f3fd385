"""Prophesee file format: header, and decoding of EVT 2.0, EVT 3.0 and DAT words."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.base import DataError
from models.common.data_files import unreadable_file
from models.event_seg.readers.recording import Events

MAX_HEADER_BYTES = 65536
"""Maximum bytes of a header."""
_ALLOWED = "% evt 2.0, % evt 3.0, % format EVT2, % format EVT3, or the header of a DAT file"


@dataclass(frozen=True)
class Header:
    """Header fields."""

    encoding: str
    """EVT2, EVT3 or DAT."""
    begin: int
    """Byte offset of the first event."""
    sensor: tuple[int, int] | None
    """Height and width; None: not in the header."""


def read_header(path: Path) -> Header:
    """Read the header of a file. Raises DataError if it is unknown."""
    try:
        with path.open("rb") as file:
            start = file.read(MAX_HEADER_BYTES)
    except OSError as error:
        raise unreadable_file(path, error) from None
    found = parse_header(start, is_dat=path.suffix.lower() == ".dat")
    if found is None:
        problem = "an unknown encoding" if start.startswith(b"%") else "no Prophesee header"
        raise DataError(f"'{path.name}' has {problem}", where=str(path), allowed=_ALLOWED)
    return found


def parse_header(start: bytes, *, is_dat: bool) -> Header | None:
    """Parse the header in the first bytes of a file; None if it is unknown.

    Lines begin with "% "; the last one may be `% end`. In a DAT file two bytes follow: kind and
    size of an event.
    """
    lines, at = [], 0
    while start[at : at + 1] == b"%" and start[at + 1 : at + 2] in (b" ", b"\n", b"\r"):
        stop = start.find(b"\n", at)
        if stop < 0:
            return None
        lines.append(start[at + 1 : stop].decode("latin-1").strip())
        at = stop + 1
        if lines[-1] == "end":
            break
    if not lines:
        return None
    encoding = "DAT" if is_dat else _encoding(lines)
    if encoding is None:
        return None
    if encoding == "DAT":
        # Kinds 0x00 and 0x0C are brightness changes; an event has eight bytes.
        if start[at : at + 1] not in (b"\x00", b"\x0c") or start[at + 1 : at + 2] != b"\x08":
            return None
        at += 2
    return Header(encoding, at, _sensor("\n".join(lines)))


def _encoding(lines: list[str]) -> str | None:
    for line in lines:
        if match := re.match(r"(?:evt |format EVT)([23])(?:\.0)?\b", line):
            return f"EVT{match[1]}"
    return None


def _sensor(text: str) -> tuple[int, int] | None:
    if match := re.search(r"^geometry (\d+)x(\d+)", text, re.MULTILINE):
        return int(match[2]), int(match[1])
    height = re.search(r"\bheight[= ](\d+)", text, re.IGNORECASE)
    width = re.search(r"\bwidth[= ](\d+)", text, re.IGNORECASE)
    return (int(height[1]), int(width[1])) if height and width else None


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
    kind = words >> 28
    is_high = kind == 0x8
    highs = unwrap(words[is_high] & 0x0FFFFFFF, 28, state[0])
    known = np.concatenate((np.array(state, np.int64), highs))
    at = np.flatnonzero(kind <= 0x1)
    high = known[is_high.cumsum()[at]]
    at, high = at[high >= 0], high[high >= 0]
    word = words[at]
    x, y = (word >> 11) & 0x7FF, word & 0x7FF
    t = high << 6 | ((word >> 22) & 0x3F)
    events = Events(t, x.astype(np.int32), y.astype(np.int32), _signed(kind[at]))
    return events, (int(known[-1]),)


def decode_evt3(words: np.ndarray, state: State) -> tuple[Events, State]:
    """Events of EVT 3.0 words; the state is time (-1: unknown), y, x of the next vector, sign.

    Times in microseconds; a new time-high sets the lower bits to 0. Source: Prophesee, EVT 3.0
    Format.
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
    word, bit = _bits(np.where(is_single, 1, np.where(kind == 0x5, load & 0xFF, load))[at])
    start = np.where(is_single, load & 0x7FF, origins[count_base] + passed)
    own_sign = np.where(is_single, load >> 11, signs[count_base])
    at = at[word]
    events = Events(
        times[seen[at]],
        (start[at] + bit).astype(np.int32),
        rows[count_y[at]],
        _signed(own_sign[at]),
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
    low = np.where(is_high[sets], 0, load[sets])
    times = np.where(high < 0, -1, high << 12 | low)
    return np.concatenate(([before], times)), sets.cumsum()


def _bits(masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each set bit, lowest first: index of its mask and position in it."""
    octets = masks.astype("<u2").view(np.uint8)
    found = np.flatnonzero(np.unpackbits(octets, bitorder="little"))
    return found >> 4, found & 15


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


ENCODING_BY_NAME = {
    "EVT2": Encoding(np.dtype("<u4"), (-1,), decode_evt2),
    "EVT3": Encoding(np.dtype("<u2"), (-1, 0, 0, 0), decode_evt3),
    "DAT": Encoding(np.dtype([("t", "<u4"), ("address", "<u4")]), (-1,), decode_dat),
}
