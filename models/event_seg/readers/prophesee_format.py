"""RAW and DAT files of Prophesee: headers, and decoding of EVT 2.0, 2.1, 3.0 and DAT words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from shlex import quote
from typing import NamedTuple

import numpy as np
from numpy import ndarray

from gearshift.models.base import DataError
from gearshift.models.event_seg.formats import encodings
from gearshift.models.event_seg.readers.recording import PIECE, Events, Sides

MAX_HEADER_BYTES = 65536
_ALLOWED = (
    "% evt 2.0, 2.1 or 3.0, % format EVT2, EVT21 or EVT3, or the header of a DAT or HDF5 file"
)
_DAT = "% Version 2, and after the header the bytes 0 (2D) or 12 (CD), and 8 (bytes of an event)"
_TO_DAT = "metavision_file_to_dat -i FILE  converts it to DAT, with Metavision or OpenEB"
_LINES = re.compile(rb"(?:%(?! end\s*\n)[ \r\n][^\n]*\n|%\n)*(?:% end\s*?\n)?")
"""The lines of a header begin with "% "; the last one may be `% end`."""
_EVENTS_OF_DAT = (b"\x00\x08", b"\x0c\x08")


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
    with path.open("rb") as file:
        start = file.read(MAX_HEADER_BYTES)
    lines = next(_LINES.finditer(start))[0]  # which may be empty
    if not lines:
        raise invalid(path, 0, "has no Prophesee header of complete lines", _ALLOWED)
    header = lines.decode("latin-1")
    text = header.lower()
    sensor = _sensor(text)
    if path.suffix.lower() == ".dat":
        # Version 1 has other bit fields. The words for the kind of events differ: CD, TD, Event2D,
        # N9Chronocam7Event2dE; the bytes do not.
        if re.search(r"^% ?version (?!2(\.0)?\s)", text, re.MULTILINE):
            raise invalid(path, 0, "has another version in its header", _DAT)
        if not start[len(lines) :].startswith(_EVENTS_OF_DAT):
            raise invalid(path, len(lines), "has an unknown type or size of events", _DAT)
        return Header("DAT", len(lines) + 2, sensor)

    names = encodings(header)
    if len(names) != 1 or names[0] not in ENCODING_BY_NAME:
        raise invalid(path, 0, f"names the encodings {names} in its header", _ALLOWED, _TO_DAT)
    if re.search(r"\bendianness[= ](?!little\b)", text):
        raise invalid(path, 0, "has words of another endianness", "endianness little", _TO_DAT)
    return Header(names[0], len(lines), sensor)


def invalid(
    path: Path,
    at: int,
    problem: str,
    allowed: str,
    hint: str = "",
) -> DataError:
    """The error for invalid content of a file at byte `at`, from 0."""
    return DataError(
        f"'{path.name}' {problem}",
        where=f"{path}, byte {at}",
        allowed=allowed,
        hint=hint,
    )


def _sensor(text: str) -> Sides | None:
    """Height and width, which a header may have at two places; None: no possible ones."""
    text = re.sub(r"% ?geometry (\d+)x(\d+)", r"width \1 height \2", text)
    sides = dict(re.findall(r"\b(height|width)[= ]([1-9]\d{0,3})\b", text))
    if len(sides) < 2:
        return None
    return int(sides["height"]), int(sides["width"])


def raw_pieces(path: Path, header: Header) -> Iterator[Events]:
    """The events of a file, decoded piece by piece. Raises DataError."""
    encoding = ENCODING_BY_NAME[header.encoding]
    size = path.stat().st_size
    width = encoding.word.itemsize
    remainder = (size - header.begin) % width
    if remainder:
        raise invalid(
            path,
            size - remainder,
            f"is truncated: its last word has {remainder} of {width} bytes",
            f"a multiple of {width} bytes after the header",
            f"copy it again, or cut its rest:  truncate -s -{remainder} {quote(str(path))}",
        )
    state = encoding.begin
    for at in range(header.begin, size, PIECE * width):
        words = np.fromfile(path, encoding.word, PIECE, offset=at)
        events, state = encoding.decode(words, state)
        yield events


State = tuple[int, ...]
"""Decoder state between pieces."""


class Encoding(NamedTuple):
    """Word type and decoder of an encoding."""

    word: np.dtype
    begin: State
    """State before the first word."""
    decode: Callable[[ndarray, State], tuple[Events, State]]
    """Decode words after a state; gives the events and the new state."""


def unwrap(
    counts: ndarray,
    bits: int,
    before: int,
) -> ndarray:
    """Unwrap counters of `bits` bits into a monotonic count, int64.

    `before`: last unwrapped count of the previous words, or -1. A step back of more than half the
    range is a wrap-around.
    """
    span = 1 << bits
    counts = counts.astype(np.int64)
    # Before the first one, no count is a step back.
    rounds, last = divmod(max(before, 0), span)
    is_wrap = np.diff(counts, prepend=last) < -(span // 2)
    return counts + (rounds + is_wrap.cumsum()) * span


def _latest(
    values: ndarray,
    is_set: ndarray,
    before: int,
) -> ndarray:
    """For each word the value of the last word up to it that `is_set`; `before`: of none."""
    return np.concatenate(([before], values[is_set]))[is_set.cumsum()]


def _highs(
    load: ndarray,
    is_high: ndarray,
    bits: int,
    before: int,
) -> ndarray:
    """The upper bits of time of each word, unwrapped; `before`: those before the first one."""
    highs = np.empty(len(load), np.int64)
    highs[is_high] = unwrap(load[is_high], bits, before)
    return _latest(highs, is_high, before)


def decode_evt2(words: ndarray, state: State) -> tuple[Events, State]:
    """Events of EVT 2.0 words; the state is the last time-high, -1 before the first one.

    Of EVT 2.1 a word has also the mask of the 32 pixels from its x on. Times in microseconds.
    Events before the first time-high have no time and are dropped. Sources: Prophesee, EVT 2.0
    Format, and EVT 2.1 Format.
    """
    heads = words["head"]
    kind = heads >> 28
    high = _highs(heads & 0x0FFFFFFF, kind == 0x8, 28, state[0])
    at = np.flatnonzero((kind <= 0x1) & (high >= 0))
    offset: ndarray | int = 0
    if words.itemsize == 8:  # of EVT 2.1
        index, offset = _bits(words["mask"][at], 32)
        at = at[index]
    head = heads[at]
    t = high[at] << 6 | (head >> 22) & 0x3F
    events = Events(t, ((head >> 11) & 0x7FF) + offset, head & 0x7FF, head >> 28)
    return events, (int(high[-1]),)


def decode_evt3(words: ndarray, state: State) -> tuple[Events, State]:
    """Events of EVT 3.0 words; the state is time (-1: unknown), y, x of the next vector, sign.

    Times in microseconds; a time-high with a new value sets the lower bits to 0, a repeated one
    keeps them. Source: Prophesee, EVT 3.0 Format.
    """
    kind = words >> 12
    load = words & 0x0FFF
    time, y, x, sign = state
    times = _times(kind, load, time)
    rows = _latest(load & 0x7FF, kind == 0x0, y)

    # A vector begins where the previous one ended: at the base plus the lengths since.
    is_8 = kind == 0x5
    is_12 = kind == 0x4
    lengths = 8 * is_8 + 12 * is_12
    ends = lengths.cumsum()
    begins = ends - lengths
    is_base = kind == 0x3
    origins = _latest((load & 0x7FF) - begins, is_base, x)
    signs = _latest(load >> 11, is_base, sign)
    end = (times[-1], rows[-1], origins[-1] + ends[-1], signs[-1])

    is_single = kind == 0x2
    masks = np.select([is_8, is_12, is_single], [load & 0xFF, load, np.ones_like(load)])
    masks[times < 0] = 0  # events before the first time are dropped
    starts = np.where(is_single, load & 0x7FF, origins + begins)
    signs = np.where(is_single, load >> 11, signs)
    word, bit = _bits(masks, 16)
    events = Events(times[word], starts[word] + bit, rows[word], signs[word])
    return events, tuple(map(int, end))


def _times(
    kind: ndarray,
    load: ndarray,
    before: int,
) -> ndarray:
    """The time of each word; `before`: that of the previous one, or -1."""
    is_high = kind == 0x8
    high_before = before >> 12  # -1 >> 12 is -1
    high = _highs(load, is_high, 12, high_before)
    is_repeated = np.diff(high, prepend=high_before) == 0
    sets_low = (is_high & ~is_repeated) | (kind == 0x6)
    low = _latest(np.where(is_high, 0, load), sets_low, before & 0xFFF)
    return np.where(high < 0, -1, high << 12 | low)


def _bits(masks: ndarray, width: int) -> tuple[ndarray, ndarray]:
    """For each set bit of masks of `width` bits, lowest first: index of its mask and position."""
    at = np.flatnonzero(masks)  # most words have none
    octets = masks[at].astype(f"<u{width // 8}").view(np.uint8)
    bits = np.flatnonzero(np.unpackbits(octets, bitorder="little"))
    return at[bits // width], bits % width


def decode_dat(words: ndarray, state: State) -> tuple[Events, State]:
    """Events of DAT words; the state is the last time, -1 before the first one. Microseconds.

    Source: Prophesee, DAT Format.
    """
    t = unwrap(words["t"], 32, state[0])
    address = words["address"]
    events = Events(t, address & 0x3FFF, (address >> 14) & 0x3FFF, address >> 28)
    return events, (int(t[-1]),)


ENCODING_BY_NAME = {
    "EVT2": Encoding(np.dtype([("head", "<u4")]), (-1,), decode_evt2),
    "EVT21": Encoding(np.dtype([("mask", "<u4"), ("head", "<u4")]), (-1,), decode_evt2),
    "EVT3": Encoding(np.dtype("<u2"), (-1, 0, 0, 0), decode_evt3),
    "DAT": Encoding(np.dtype([("t", "<u4"), ("address", "<u4")]), (-1,), decode_dat),
}
