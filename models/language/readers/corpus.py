"""Corpus of texts or exchanges, read from files in each pass, checked and deduplicated."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, compress, islice
from typing import TYPE_CHECKING

import numpy as np

from gearshift.models.base import DataError, Groups, SplitName
from gearshift.models.common import array_file
from gearshift.models.common.data_reports import BadRecords, MissingPackage, OnBad
from gearshift.models.common.split import SPLITS
from gearshift.models.language.readers.records import Record, normalized

if TYPE_CHECKING:
    from gearshift.models.language.readers.files import FileSource

SMALL = 8 * 2**20
"""Bytes of data up to which nothing is cached: the files are read at each start."""
VERSION = 13
"""Cache version; increase it when the same files give another index or other tokens."""
_CHUNK = 1 << 16
"""Records whose entries are Python objects at a time."""
_DIGEST = 16
"""Bytes of a digest: a billion texts have a collision with probability 10**-20."""


class RecordSource:
    """Records in memory; one part."""

    format = "embedded"
    size = 0
    stamp = ""
    parts = 1
    ignored = 0
    other_splits = ""
    note = ""
    meanings: Mapping[str, str] = {}

    def __init__(self, name: str, records: Sequence[Record]) -> None:
        self.name = name
        self._records = records

    def part_name(self, part: int) -> str:
        return self.name

    def read(self, part: int, bad_records: BadRecords) -> Iterator[Record]:
        return iter(self._records)

    def current_stamp(self) -> str:
        return self.stamp


class Corpus:
    """Texts or exchanges without duplicates. Each pass reads from disk."""

    def __init__(self, source: FileSource | RecordSource, index: Mapping[str, np.ndarray]) -> None:
        """`index`: the arrays of `scan`."""
        self.source = source
        self._index = index
        self.is_text = bool(index["is_text"][0])
        self.names = index["names"]
        self.labels = index["labels"]
        """The source of each in UTF-8, and the number of its kind of request."""
        self.keys = index["keys"]
        """A digest of each text or request, the same for equal ones."""
        self.prefix = ""
        """The name of the source, before the groups of each of several."""
        self.numbers = np.arange(len(self))
        """The records that may be in a split: all but those that another source has, too."""
        self.encodings: dict[str, list[str]]
        """The files whose encoding was assumed, by encoding."""
        self.meanings: dict[str, str]
        """What the columns of rows mean, by their names."""
        self.encodings, self.meanings = json.loads(index["notes"].tobytes())

    def __len__(self) -> int:
        return len(self.names)

    @property
    def groups(self) -> Iterator[str]:
        """The split group of each of `numbers`."""
        groups = self._index["groups"][self.numbers]
        return (self.prefix + text_of(group) for group in groups)

    def leave_out(self, keys: np.ndarray) -> None:
        """Keep the texts and requests with one of `keys` out of all splits."""
        self.numbers = np.flatnonzero(~np.isin(self.keys, keys))

    def members(self, splits: Groups) -> dict[SplitName, np.ndarray]:
        """The numbers of the records of each split, in order; `splits`: the groups of each."""
        groups = self._index["groups"][self.numbers]
        members = {}
        for name in SPLITS:
            # Groups beyond data.fraction are in no split.
            chosen = [bytes_of(group.removeprefix(self.prefix)) for group in splits[name]]
            members[name] = self.numbers[np.isin(groups, chosen)]
        return members

    @property
    def left_out(self) -> Counter[str]:
        """Non-zero counts of skipped rows, duplicates and ignored files."""
        return +Counter(
            skipped_rows=int(self._index["skipped"][0]),
            ignored_files=self.source.ignored,
            duplicates=len(self._index["is_kept"]) - len(self.numbers),
        )

    def records(self) -> Iterator[Record]:
        """The texts or exchanges in order."""
        # The index counts no record of a bad part, so none of them is read.
        bad_parts = self._index["bad_parts"]
        parts = (part for part in range(self.source.parts) if part not in bad_parts)
        records = (self.source.read(part, BadRecords()) for part in parts)
        return compress(chain.from_iterable(records), self._index["is_kept"])

    def texts(self, chosen: np.ndarray) -> Iterator[str]:
        """What the records with the numbers `chosen` say, and the turns before them."""
        is_chosen = np.zeros(len(self), dtype=bool)
        is_chosen[chosen] = True
        for record in compress(self.records(), is_chosen):
            yield from (*(turn.text for turn in record.before), record.text)

    def check_unchanged(self) -> None:
        """Raises DataError if the files changed since they were indexed."""
        if self.source.current_stamp() != self.source.stamp:
            raise DataError(
                f"'{self.source.name}' changed while it was read",
                where="data.path",
                allowed="files that do not change during the start of a run",
            )


def text_of(name: bytes) -> str:
    """A name or group of a corpus; names of files need not be UTF-8."""
    return name.decode("utf-8", "surrogateescape")


def bytes_of(name: str) -> bytes:
    """As `text_of` reads them."""
    return name.encode("utf-8", "surrogateescape")


def from_records(name: str, records: Sequence[Record]) -> Corpus:
    """Corpus of records in memory. Raises DataError."""
    source = RecordSource(name, records)
    return Corpus(source, scan(source, "stop"))


def scan(source: FileSource | RecordSource, on_bad: OnBad) -> array_file.Arrays:
    """Arrays of the index of all records. Raises DataError."""
    bad_records = BadRecords()
    bad_parts: list[int] = []
    notes: dict[str, list[str]] = {}
    chunks: list[list[np.ndarray]] = []
    for part in range(source.parts):
        name = source.part_name(part)
        try:
            chunks += _chunks(source.read(part, bad_records))
            if source.note:
                notes.setdefault(source.note, []).append(name)
        except MissingPackage:  # no fault of the file
            raise
        except DataError as error:
            if on_bad == "stop" or source.parts == 1:
                raise
            bad_records.add(name, error.message, error.fix or error.hint)
            bad_parts.append(part)
    num_good = 0
    if bad_records.count and chunks:
        num_good = len(np.unique(np.concatenate([names for names, *_ in chunks])))
    skipped = bad_records.finish(on_bad, num_good)
    if not chunks:
        raise DataError(
            f"'{source.name}' has no usable data",
            where=f"data.path, skipped rows: {skipped}",
            allowed="text, or requests with answers",
        )

    names, groups, keys, labels = map(np.concatenate, zip(*chunks, strict=True))
    is_text = labels == b""
    if is_text.any() != is_text.all():
        raise DataError(
            f"'{source.name}' contains plain text and conversations",
            where="data.path",
            allowed="either plain text or conversations",
            hint="move one of them to another folder",
        )
    # Of equal texts or requests, the first one is kept.
    _, first = np.unique(keys, return_index=True)
    is_kept = np.zeros(len(keys), dtype=bool)
    is_kept[first] = True
    _, label_numbers = np.unique(labels[is_kept], return_inverse=True)
    return {
        "is_text": is_text[:1],
        "skipped": np.array([skipped]),
        "bad_parts": np.array(bad_parts, dtype=np.int64),
        "is_kept": is_kept,
        "labels": label_numbers.reshape(-1),
        "names": names[is_kept],
        "groups": groups[is_kept],
        "keys": keys[is_kept],
        "notes": np.frombuffer(json.dumps([notes, source.meanings]).encode(), np.uint8),
    }


def _chunks(records: Iterator[Record]) -> list[list[np.ndarray]]:
    """Vectors of each field of Entry: Python objects of all records would take gigabytes."""
    entries = map(_entry, records)
    chunks = []
    while chunk := list(islice(entries, _CHUNK)):
        chunks.append(list(map(np.array, zip(*chunk, strict=True))))
    return chunks


Entry = tuple[bytes, bytes, bytes, bytes]
"""Name, group, and digests of the text or request and of the kind of request, which texts lack."""


def _entry(record: Record) -> Entry:
    compared = normalized(record.text)
    label = b""
    if record.before:
        compared = "\n".join(f"{turn.role} {normalized(turn.text)}" for turn in record.before)
        label = _digest(record.label)
    return bytes_of(record.where), bytes_of(record.group), _digest(compared), label


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:_DIGEST]
