"""Corpus of documents or exchanges, read from files in each pass, checked and deduplicated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from models.base import DataError
from models.common import cache
from models.common.data_files import BadRecords, OnBad
from models.language.readers.index import Index, Scan, exchanges_in
from models.language.readers.records import Conversation, Document, Exchange, Record

NO_COLUMNS: Mapping[str, str] = {}


class Source(Protocol):
    """Records in consecutive parts; a part may be invalid as a whole."""

    name: str
    """The path as given."""
    format: str
    """Short description of the file formats."""
    size: int
    """Bytes on disk; 0: records are in memory."""
    stamp: str
    """Digest that changes with the set of files, their sizes and times."""
    ignored: int
    """Number of files that are not read."""
    note: str
    """The encoding that was assumed of the part that was read last."""

    @property
    def parts(self) -> int:
        """Number of parts."""

    def part_name(self, part: int) -> str:
        """Name of a part for messages."""

    def read(self, part: int, bad_records: BadRecords) -> Iterator[Record]:
        """Read the records of a part; adds invalid rows to `bad_records`. Raises DataError."""

    def current_stamp(self) -> str:
        """`stamp` of the files as they are now. Raises DataError."""


class RecordSource:
    """Records in memory."""

    format, size, stamp, parts, ignored, note = "embedded", 0, "", 1, 0, ""

    def __init__(self, name: str, records: Sequence[Record]) -> None:
        self.name, self._records_in_memory = name, records

    def part_name(self, part: int) -> str:
        return self.name

    def read(self, part: int, bad_records: BadRecords) -> Iterator[Record]:
        return iter(self._records_in_memory)

    def current_stamp(self) -> str:
        return self.stamp


SMALL = 8 * 2**20
"""Bytes of data up to which nothing is cached: the files are read at each start."""

VERSION = 6
"""Cache version; increase it when the same files give another index or other tokens."""


class Corpus:
    """Documents or exchanges without duplicates. Each pass reads from disk."""

    def __init__(self, source: Source, index: Index) -> None:
        self.source, self.index = source, index
        self.is_text = index.is_text

    def __len__(self) -> int:
        return len(self.index.kept)

    @property
    def left_out(self) -> Counter[str]:
        """Non-zero counts of skipped rows, duplicates and ignored files."""
        return +Counter(
            skipped_rows=self.index.skipped,
            ignored_files=self.source.ignored,
            duplicates=self.index.duplicates,
        )

    def documents(self) -> Iterator[tuple[int, Document]]:
        """Documents in order with their numbers; a long one comes in parts."""
        last: str | None = None
        entry, number = -1, -1
        is_kept = _SortedMembership(self.index.kept)
        for record in self._records():
            if not isinstance(record, Document):
                continue
            if record.group != last:
                last, entry = record.group, entry + 1
                number += is_kept(entry)
            if is_kept(entry):
                yield number, record

    def exchanges(self) -> Iterator[tuple[int, Exchange]]:
        """Exchanges in order with their numbers."""
        is_kept = _SortedMembership(self.index.kept)
        conversations = (r for r in self._records() if isinstance(r, Conversation))
        every = (exchange for record in conversations for exchange in exchanges_in(record))
        yield from enumerate(exchange for entry, exchange in enumerate(every) if is_kept(entry))

    def texts(self, chosen: np.ndarray) -> Iterator[str]:
        """Texts of the documents or exchanges with the ascending numbers `chosen`; in parts."""
        is_chosen = _SortedMembership(chosen)
        if self.is_text:
            yield from (document.text for i, document in self.documents() if is_chosen(i))
            return
        for i, exchange in self.exchanges():
            if is_chosen(i):
                yield from (turn.text for turn in exchange.before)
                yield exchange.answer

    def _records(self) -> Iterator[Record]:
        bad_records = BadRecords()
        for part in range(self.source.parts):
            if part not in self.index.bad_parts:
                yield from self.source.read(part, bad_records)

    def check_unchanged(self) -> None:
        """Raises DataError if the files changed since they were indexed."""
        if self.source.current_stamp() != self.source.stamp:
            raise DataError(
                f"'{self.source.name}' changed while it was read",
                where="data.path",
                allowed="files that do not change during the start of a run",
            )


class _SortedMembership:
    """Membership test in an ascending array for ascending queries."""

    def __init__(self, numbers: np.ndarray) -> None:
        self._numbers, self._at = numbers, 0

    def __call__(self, number: int) -> bool:
        numbers = self._numbers
        while self._at < len(numbers) and numbers[self._at] < number:
            self._at += 1
        return self._at < len(numbers) and bool(numbers[self._at] == number)


def read_corpus(
    path: Path, answers: Path | None, on_bad: OnBad, columns: Mapping[str, str] = NO_COLUMNS
) -> Corpus:
    """Read the corpus under `path`; line N of `answers` answers line N of `path`.

    `columns`: declared ones, see columns_in. Reads the files once, or their cached index. Raises
    DataError.
    """
    from models.language.readers.files import FileSource  # data that is built in has no files

    source = FileSource(path, answers, columns)
    if source.size <= SMALL:
        return Corpus(source, Index(_scan(source, on_bad)))
    made_from = {"version": VERSION, "files": source.stamp, "on_bad": on_bad}
    arrays = cache.arrays("language-index", made_from, lambda: _scan(source, on_bad))
    return Corpus(source, Index(arrays))


def from_records(name: str, records: Sequence[Record]) -> Corpus:
    """Corpus of records in memory. Raises DataError."""
    source = RecordSource(name, records)
    return Corpus(source, Index(_scan(source, "stop")))


def _scan(source: Source, on_bad: OnBad) -> dict[str, np.ndarray]:
    """Arrays of the index of all records. Raises DataError."""
    scan, bad_records = Scan(), BadRecords()
    bad_parts: list[int] = []
    notes: dict[str, list[str]] = {}
    for part in range(source.parts):
        mark, count = scan.mark(), bad_records.count
        try:
            for record in source.read(part, bad_records):
                if isinstance(record, Document):
                    scan.add_document(record)
                elif not scan.add_conversation(record):
                    bad_records.add(record.where, "no request with an answer")
            scan.close()
            if source.note:
                notes.setdefault(source.note, []).append(source.part_name(part))
        except DataError as error:
            if on_bad == "stop" or source.parts == 1:
                raise
            scan.rollback(mark)
            bad_records.truncate(count)
            bad_records.add(source.part_name(part), error.message, error.fix)
            bad_parts.append(part)
    skipped = bad_records.finish(on_bad, scan.documents + scan.conversations)
    documents, conversations = scan.documents, scan.conversations
    if documents and conversations:
        raise DataError(
            f"'{source.name}' contains plain text (documents: {documents}) and conversations "
            f"({conversations})",
            where="data.path",
            allowed="either plain text or conversations",
            fix="move one of them to another folder",
        )
    if not documents and not conversations:
        raise DataError(
            f"'{source.name}' has no usable data",
            where=f"data.path, skipped rows: {skipped}",
            allowed="text, or requests with answers",
        )
    return scan.arrays(skipped, bad_parts, notes)
