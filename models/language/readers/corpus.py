"""Corpus of documents or exchanges, read from files in each pass, checked and deduplicated."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from models.base import DataError
from models.common import cache
from models.common.data_files import BadRecords, OnBad
from models.language.readers.files import FileSource, RecordSource
from models.language.readers.records import Document, Exchange, Record, exchanges_in, normalized

NO_COLUMNS: Mapping[str, str] = {}
SMALL = 8 * 2**20
"""Bytes of data up to which nothing is cached: the files are read at each start."""
VERSION = 7
"""Cache version; increase it when the same files give another index or other tokens."""
_CHUNK = 1 << 16
"""Records whose entries are Python objects at a time."""
_DIGEST = 16
"""Bytes of a digest: a billion texts have a collision with probability 10**-20."""


class Corpus:
    """Documents or exchanges without duplicates. Each pass reads from disk."""

    def __init__(self, source: FileSource | RecordSource, index: Mapping[str, np.ndarray]) -> None:
        """`index`: the arrays of `_scan`, of all that was read; `kept` is without duplicates."""
        self.source, self._kept, self._index = source, index["kept"], index
        self.is_text, self.skipped = bool(index["is_text"][0]), int(index["skipped"][0])
        self.names, self.labels = index["names"][self._kept], index["labels"][self._kept]
        """The source of each in UTF-8, and the number of its kind of request."""
        self.encodings: dict[str, list[str]] = json.loads(index["notes"].tobytes())
        """The files whose encoding was assumed, by encoding."""

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def groups(self) -> Iterator[str]:
        """The split group of each."""
        return map(text_of, self._index["groups"][self._kept])

    @property
    def left_out(self) -> Counter[str]:
        """Non-zero counts of skipped rows, duplicates and ignored files."""
        duplicates = len(self._index["names"]) - len(self)
        return +Counter(skipped_rows=self.skipped, ignored_files=self.source.ignored, duplicates=duplicates)

    def records(self) -> Iterator[Document | Exchange]:
        """The documents or exchanges in order."""
        bad_records, bad_parts = BadRecords(), self._index["bad_parts"]
        is_kept = np.zeros(len(self._index["names"]), dtype=bool)
        is_kept[self._kept] = True
        number = 0
        for part in range(self.source.parts):
            for record in self.source.read(part, bad_records) if part not in bad_parts else ():
                for item in [record] if isinstance(record, Document) else exchanges_in(record):
                    if number < len(is_kept) and is_kept[number]:
                        yield item
                    number += 1

    def texts(self, chosen: np.ndarray) -> Iterator[str]:
        """Texts of the documents or exchanges with the numbers `chosen`."""
        is_chosen = np.zeros(len(self), dtype=bool)
        is_chosen[chosen] = True
        for item, wanted in zip(self.records(), is_chosen, strict=False):
            if wanted and isinstance(item, Document):
                yield item.text
            elif wanted and isinstance(item, Exchange):
                yield from (*(turn.text for turn in item.before), item.answer)

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


def read_corpus(
    path: Path, answers: Path | None, on_bad: OnBad, columns: Mapping[str, str] = NO_COLUMNS
) -> Corpus:
    """Read the corpus under `path`; line N of `answers` answers line N of `path`.

    `columns`: declared ones, see columns_in. Reads the files once, or their cached index. Raises
    DataError.
    """
    source = FileSource(path, answers, columns)
    if source.size <= SMALL:
        return Corpus(source, _scan(source, on_bad))
    made_from = {"version": VERSION, "files": source.stamp, "on_bad": on_bad}
    return Corpus(source, cache.arrays("language-index", made_from, lambda: _scan(source, on_bad)))


def from_records(name: str, records: Sequence[Record]) -> Corpus:
    """Corpus of records in memory. Raises DataError."""
    source = RecordSource(name, records)
    return Corpus(source, _scan(source, "stop"))


Entry = tuple[bytes, bytes, bytes, bytes]
"""Name, group, and digests of the text or request and of the kind of request, which texts lack."""


def _scan(source: FileSource | RecordSource, on_bad: OnBad) -> dict[str, np.ndarray]:
    """Arrays of the index of all records. Raises DataError."""
    entries, bad_records, num_good = list[Entry](), BadRecords(), 0
    chunks = list[list[np.ndarray]]()  # Python objects of many records would take gigabytes
    bad_parts, notes = list[int](), dict[str, list[str]]()

    def pack(some: Sequence[Entry]) -> None:
        if some:
            chunks.append([np.array(column) for column in zip(*some, strict=True)])

    for part in range(source.parts):
        before = len(chunks), len(entries)
        counts = bad_records.count, num_good
        try:
            for record in source.read(part, bad_records):
                entries += (found := _entries(record))
                num_good += bool(found)
                if not found and not isinstance(record, Document):
                    bad_records.add(record.where, "no request with an answer")
                if len(entries) >= _CHUNK:
                    if before[1]:  # those of earlier parts stay if this one is bad
                        pack(entries[: before[1]])
                        del entries[: before[1]]
                        before = len(chunks), 0
                    pack(entries)
                    entries.clear()
            if source.note:
                notes.setdefault(source.note, []).append(source.part_name(part))
        except DataError as error:
            if on_bad == "stop" or source.parts == 1:
                raise
            del chunks[before[0] :], entries[before[1] :]
            bad_records.truncate(counts[0])
            num_good = counts[1]
            bad_records.add(source.part_name(part), error.message, error.fix)
            bad_parts.append(part)
    skipped = bad_records.finish(on_bad, num_good)
    pack(entries)
    if not chunks:
        raise DataError(
            f"'{source.name}' has no usable data",
            where=f"data.path, skipped rows: {skipped}",
            allowed="text, or requests with answers",
        )
    names, groups, keys, labels = (np.concatenate(columns) for columns in zip(*chunks, strict=True))
    if len(is_text := np.unique(labels == b"")) > 1:
        raise DataError(
            f"'{source.name}' contains plain text and conversations",
            where="data.path",
            allowed="either plain text or conversations",
            fix="move one of them to another folder",
        )
    return {
        "is_text": is_text,
        "skipped": np.array([skipped]),
        "bad_parts": np.array(bad_parts, dtype=np.int64),
        "kept": np.sort(np.unique(keys, return_index=True)[1]),  # first of equal ones
        "labels": np.unique(labels, return_inverse=True)[1].reshape(-1),
        "names": names,
        "groups": groups,
        "notes": np.frombuffer(json.dumps(notes).encode(), np.uint8),
    }


def _entries(record: Record) -> list[Entry]:
    """The entries of a document or of the exchanges of a conversation."""
    if isinstance(record, Document):
        name = record.group.encode("utf-8", "surrogateescape")
        return [(name, name, _digest(normalized(record.text)), b"")]
    return [
        (
            exchange.where.encode("utf-8", "surrogateescape"),
            exchange.group.encode("utf-8", "surrogateescape"),
            _digest("\n".join(f"{turn.role} {normalized(turn.text)}" for turn in exchange.before)),
            _digest(exchange.label),
        )
        for exchange in exchanges_in(record)
    ]


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:_DIGEST]
