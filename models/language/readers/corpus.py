"""Corpus of documents or exchanges, read from files in each pass, checked and deduplicated."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from models.base import DataError
from models.common import cache
from models.common.data_files import BadRecords, OnBad, identity, unknown_format, unreadable_file
from models.common.text_file import TextFile, has_byte_order_mark, wide_without_mark
from models.language.readers import plain_text
from models.language.readers.columns import RawRow, RowReader
from models.language.readers.index import Index, Scan, exchanges_in
from models.language.readers.plain_text import (
    FORMATS,
    SUFFIXES,
    Kind,
    file_kind,
    find_files,
    suffix_of,
)
from models.language.readers.records import Conversation, Document, Exchange, Record
from models.language.readers.tables import (
    has_rows,
    json_line_rows,
    json_rows,
    parquet_rows,
    read_parallel,
    table_rows,
)

_ROWS: Mapping[Kind, Callable[[TextFile, str, BadRecords], Iterator[RawRow]]] = {
    "CSV": table_rows,
    "JSONL": json_line_rows,
    "JSON": json_rows,
    "Parquet": parquet_rows,
}
NO_COLUMNS: Mapping[str, str] = {}


def rows_of(file: TextFile, name: str, bad_records: BadRecords) -> Iterator[RawRow] | None:
    """The rows of a file, as training and use read them; None: it is a text. Raises DataError."""
    kind = file_kind(file.path)
    return _ROWS[kind](file, name, bad_records) if kind in _ROWS else None


class Source:
    """Records in consecutive parts: files under a path, of which each may be invalid as a whole.

    Line N of `answers` answers line N of the path.
    """

    format: str
    """Short description of the file formats."""
    size: int
    """Bytes on disk; 0: records are in memory."""
    stamp: str
    """Digest that changes with the set of files, their sizes and times."""
    ignored: int
    """Number of files that are not read."""
    note = ""
    """The encoding that was assumed of the part that was read last."""

    def __init__(
        self, path: Path, answers: Path | None, columns: Mapping[str, str] = NO_COLUMNS
    ) -> None:
        """`columns`: see columns_in. Raises DataError if there is nothing to read."""
        self.name, self._path, self._answers = str(path), path, answers
        self._columns = columns
        if answers is None:
            self._files, self.ignored = find_files(path, has_rows)
            if self._files == [path] and _is_binary(path):
                raise unknown_format(path, FORMATS)
        else:
            for key, file in (("data.path", path), ("data.answers", answers)):
                if not file.is_file():
                    raise DataError(
                        f"{key} '{file}' is not a file",
                        where=str(file.absolute()),
                        allowed="two files: line N of data.answers answers line N of data.path",
                    )
            self._files, self.ignored = [path, answers], 0
        self.size, self.stamp = self._stat_files()
        kinds = {file_kind(file) for file in self._files}
        self.format = "two files" if answers is not None else " and ".join(sorted(kinds))

    @property
    def parts(self) -> int:
        """One part per file; two parallel files are one part."""
        return len(self._files) if self._answers is None else 1

    def part_name(self, part: int) -> str:
        """Name of a part for messages."""
        file = self._files[part]
        return file.relative_to(self._path).as_posix() if self._in_folder else file.name

    def read(self, part: int, bad_records: BadRecords) -> Iterator[Record]:
        """The records of a part; adds invalid rows to `bad_records`. Raises DataError."""
        file = TextFile(self._files[part])
        if self._answers is None:
            yield from self._records(file, self.part_name(part), bad_records)
            self.note = file.note
        else:
            answers = TextFile(self._answers)
            yield from read_parallel(file, answers, bad_records)
            self.note = file.note or answers.note

    def _records(self, file: TextFile, name: str, bad_records: BadRecords) -> Iterator[Record]:
        rows = rows_of(file, name, bad_records)
        if rows is not None:
            reader = RowReader(name, self._columns, bad_records)
            return (record for row in rows for record in reader.records(row))
        if plain_text.is_dialogue(file.first_line()):
            return plain_text.read_conversations(file, name, bad_records)
        if self._in_folder:
            return plain_text.read_whole(file, name)
        return plain_text.read_documents(file, name)

    def current_stamp(self) -> str:
        """`stamp` of the files as they are now. Raises DataError."""
        return self._stat_files()[1]

    @property
    def _in_folder(self) -> bool:
        return self._files[0] != self._path

    def _stat_files(self) -> tuple[int, str]:
        digest, total = hashlib.sha256(os.fsencode(self._path.absolute())), 0
        digest.update(repr(sorted(self._columns.items())).encode())
        for file in self._files:
            try:
                file_identity = identity(file)
            except OSError as error:
                raise unreadable_file(file, error) from None
            total += file_identity[0]
            digest.update(os.fsencode(file))
            digest.update(f"\0{file_identity}\0".encode())
        return total, digest.hexdigest()


def _is_binary(file: Path) -> bool:
    """Whether a file without a known suffix starts with bytes that are not text."""
    if suffix_of(file) in SUFFIXES:
        return False
    try:
        with TextFile(file).open() as opened:
            head = opened.read(4096)
    except OSError as error:
        raise unreadable_file(file, error) from None
    is_text = has_byte_order_mark(head) or wide_without_mark(head) is not None
    return b"\0" in head and not is_text


class RecordSource(Source):
    """Records in memory, which are one part."""

    format, size, stamp, parts, ignored = "embedded", 0, "", 1, 0

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

VERSION = 5
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
                yield from (turn.rendered for turn in exchange.before)
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
    source = Source(path, answers, columns)
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
