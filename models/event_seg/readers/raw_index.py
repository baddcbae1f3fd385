"""Where in a Prophesee file which time is: found in one pass over it, a piece at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.base import DataError
from models.common import cache
from models.event_seg.readers.decoding import BY_NAME, State
from models.event_seg.readers.header import Header
from models.event_seg.recording import Events, check_ascending

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


def build(path: Path, header: Header) -> Index:
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
    while len(words := piece(path, header, number)):
        yield words
        number += 1


def piece(path: Path, header: Header, number: int) -> np.ndarray:
    """The words of one piece. Reads them, and no more."""
    word = BY_NAME[header.encoding].word
    offset = header.begin + number * PIECE * word.itemsize
    return np.fromfile(path, word, PIECE, offset=offset)


def between(path: Path, header: Header, index: Index, start: int, stop: int) -> Events:
    """The events of [start, stop), microseconds. Reads the pieces that hold them."""
    decode = BY_NAME[header.encoding].decode
    low = int(np.searchsorted(index.last, start, side="left"))
    high = int(np.searchsorted(index.first, stop, side="left"))
    found = [
        decode(piece(path, header, number), _state(index, number))[0] for number in range(low, high)
    ]
    parts = [e[slice(*np.searchsorted(e.t, (start, stop), side="left"))] for e in found]
    if len(parts) == 1:
        return parts[0]
    empty = Events(*(np.empty(0, kind) for kind in (np.int64, np.int32, np.int32, np.int8)))
    parts = parts or [empty]
    return Events(*(np.concatenate([getattr(e, key) for e in parts]) for key in "txyp"))


def _state(index: Index, number: int) -> State:
    return tuple(map(int, index.states[number]))
