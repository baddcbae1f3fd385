"""Where records come from: files, or a list; read again at each pass, never held."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from models.base import DataError
from models.common import cache
from models.common.data_files import BadRecords, OnBad, unknown_format, unreadable_file
from models.language.readers import plain_text
from models.language.readers.index import Index, Scan, exchanges_in
from models.language.readers.json_and_csv import read_csv, read_json_lines, read_parallel
from models.language.readers.records import Conversation, Document, Exchange, Record
from models.language.readers.text_file import (
    CSV,
    FORMATS,
    JSONL,
    SUFFIXES,
    TextFile,
    file_kind,
    find_files,
    has_mark,
)


class Source(Protocol):
    """Records in parts, which are read one after the other and may each be unusable as a whole."""

    name: str
    """As the person wrote it."""
    format: str
    """What its files are, in a few words."""
    size: int
    """Bytes on disk; 0: the records are in memory."""
    stamp: str
    """Another one where the files are other ones, or were changed."""
    ignored: int
    """Files that are there and are not read."""

    @property
    def parts(self) -> int:
        """How many parts there are."""

    def part_name(self, part: int) -> str:
        """What to call it."""

    def read(self, part: int, faults: BadRecords) -> Iterator[Record]:
        """The records of a part; rows that cannot be used go to `faults`. Raises DataError."""

    def stamp_now(self) -> str:
        """`stamp` as it would be if the source were opened now. Raises DataError."""


class Files:
    """The files of a path; with `answers`, line N of it answers line N of the path."""

    def __init__(self, path: Path, answers: Path | None) -> None:
        """Raises DataError if there is nothing to read."""
        self.name, self._path, self._answers = str(path), path, answers
        if answers is None:
            self._files, self.ignored = find_files(path)
            if self._files == [path] and _is_binary(path):
                raise unknown_format(path, FORMATS)
        else:
            self._files, self.ignored = _two_files(path, answers), 0
        self.size, self.stamp = self._look()
        kinds = {file_kind(file) for file in self._files}
        self.format = "two files" if answers is not None else " and ".join(sorted(kinds))

    @property
    def parts(self) -> int:
        """One a file; two parallel files are one."""
        return len(self._files) if self._answers is None else 1

    def part_name(self, part: int) -> str:
        """The file's path below the folder, or its name."""
        file = self._files[part]
        return file.relative_to(self._path).as_posix() if self._in_folder else file.name

    def read(self, part: int, faults: BadRecords) -> Iterator[Record]:
        """See Source."""
        if self._answers is not None:
            return read_parallel(self._path, self._answers, faults)
        file, name = TextFile(self._files[part]), self.part_name(part)
        first, suffix = file.first_line(), file.path.suffix.lower()
        if suffix in JSONL:
            return read_json_lines(file, name, faults)
        if suffix in CSV:
            return read_csv(file, name, faults)
        if plain_text.is_dialogue(first):
            return plain_text.read_conversations(file, name, faults)
        if self._in_folder:
            return plain_text.read_whole(file, name)
        return plain_text.read_documents(file, name)

    def stamp_now(self) -> str:
        """See Source."""
        return self._look()[1]

    @property
    def _in_folder(self) -> bool:
        return self._files[0] != self._path

    def _look(self) -> tuple[int, str]:
        """The bytes of all files, and a digest of their names, sizes and times."""
        digest, total = hashlib.sha256(os.fsencode(self._path.absolute())), 0
        for file in self._files:
            try:
                found = file.stat()
            except OSError as error:
                raise unreadable_file(file, error) from None
            total += found.st_size
            digest.update(os.fsencode(file))
            digest.update(f"\0{found.st_size}\0{found.st_mtime_ns}\0".encode())
        return total, digest.hexdigest()


def _two_files(path: Path, answers: Path) -> list[Path]:
    for key, file in (("data.path", path), ("data.answers", answers)):
        if not file.is_file():
            raise DataError(
                f"{key} '{file}' is no file",
                where=f"looked for {file.absolute()}",
                allowed="two files: line N of data.answers answers line N of data.path",
            )
    return [path, answers]


def _is_binary(file: Path) -> bool:
    """Whether a file of no known suffix begins with bytes that are no text in any encoding."""
    if file.suffix.lower() in SUFFIXES:
        return False
    try:
        with file.open("rb") as opened:
            head = opened.read(4096)
    except OSError as error:
        raise unreadable_file(file, error) from None
    return b"\0" in head and not has_mark(head)


class Listed:
    """Records that are in memory."""

    format, size, stamp, parts = "embedded", 0, "", 1

    def __init__(self, name: str, records: Sequence[Record]) -> None:
        self.name, self.ignored, self._records = name, 0, records

    def part_name(self, part: int) -> str:
        """See Source."""
        return self.name

    def read(self, part: int, faults: BadRecords) -> Iterator[Record]:
        """See Source."""
        return iter(self._records)

    def stamp_now(self) -> str:
        """See Source."""
        return self.stamp


SMALL = 8 * 2**20
"""Bytes up to which files are read anew at each start, and nothing of them is kept in the cache."""

VERSION = 1
"""Raise it when the same files give another index or other tokens: caches are then made anew."""


class Corpus:
    """Either documents or exchanges; equal ones are there once. Each pass reads the disk again."""

    def __init__(self, source: Source, index: Index) -> None:
        self.source, self.index = source, index
        self.is_text = index.is_text

    def __len__(self) -> int:
        return len(self.index.kept)

    @property
    def left_out(self) -> Counter[str]:
        """Counts that are not 0: skipped rows, duplicates, ignored files."""
        return +Counter(
            skipped_rows=self.index.skipped,
            ignored_files=self.source.ignored,
            duplicates=self.index.duplicates,
        )

    def documents(self) -> Iterator[tuple[int, Document]]:
        """The documents in order, each after its number; a long one comes in parts."""
        last: str | None = None
        entry, number = -1, -1
        is_kept = _Members(self.index.kept)
        for record in self._records():
            if not isinstance(record, Document):
                continue
            if record.group != last:
                last, entry = record.group, entry + 1
                number += is_kept(entry)
            if is_kept(entry):
                yield number, record

    def exchanges(self) -> Iterator[tuple[int, Exchange]]:
        """The exchanges in order, each after its number."""
        entry, number = -1, -1
        is_kept = _Members(self.index.kept)
        for record in self._records():
            if not isinstance(record, Conversation):
                continue
            for exchange in exchanges_in(record):
                entry += 1
                if is_kept(entry):
                    number += 1
                    yield number, exchange

    def texts(self, chosen: np.ndarray) -> Iterator[str]:
        """The texts of the documents or exchanges that `chosen` numbers, ascending; in parts."""
        is_chosen = _Members(chosen)
        if self.is_text:
            yield from (document.text for i, document in self.documents() if is_chosen(i))
            return
        for i, exchange in self.exchanges():
            if is_chosen(i):
                yield from (turn.text for turn in exchange.before)
                yield exchange.answer

    def _records(self) -> Iterator[Record]:
        faults = BadRecords()
        for part in range(self.source.parts):
            if part not in self.index.bad_parts:
                yield from self.source.read(part, faults)

    def check_unchanged(self) -> None:
        """Raises DataError where the files are no longer those that the index is of."""
        if self.source.stamp_now() != self.source.stamp:
            raise DataError(
                f"'{self.source.name}' changed while it was read",
                where="data.path",
                allowed="files that stay as they are while a run starts",
            )


class _Members:
    """Whether a number is in an ascending array, asked in ascending order."""

    def __init__(self, numbers: np.ndarray) -> None:
        self._numbers, self._at = numbers, 0

    def __call__(self, number: int) -> bool:
        numbers = self._numbers
        while self._at < len(numbers) and numbers[self._at] < number:
            self._at += 1
        return self._at < len(numbers) and bool(numbers[self._at] == number)


def read_corpus(path: Path, answers: Path | None, on_bad: OnBad) -> Corpus:
    """What the files under `path` hold; with `answers`, line N of it answers line N of `path`.

    Reads the files once, or of larger ones what the cache keeps. Raises DataError.
    """
    source = Files(path, answers)
    if source.size <= SMALL:
        return Corpus(source, Index(_scan(source, on_bad)))
    made_from = {"version": VERSION, "files": source.stamp, "on_bad": on_bad}
    arrays = cache.arrays("language-index", made_from, lambda: _scan(source, on_bad))
    return Corpus(source, Index(arrays))


def from_records(name: str, records: Sequence[Record]) -> Corpus:
    """A corpus of records that are in memory. Raises DataError."""
    source = Listed(name, records)
    return Corpus(source, Index(_scan(source, "stop")))


def _scan(source: Source, on_bad: OnBad) -> dict[str, np.ndarray]:
    """The arrays of the index of all records. Raises DataError."""
    scan, faults = Scan(), BadRecords()
    bad_parts: list[int] = []
    for part in range(source.parts):
        mark, count = scan.mark(), faults.count
        try:
            for record in source.read(part, faults):
                if isinstance(record, Document):
                    scan.add_document(record)
                elif not scan.add_conversation(record):
                    faults.add(record.where, "no request with an answer")
            scan.close()
        except DataError as error:
            if on_bad == "stop" or source.parts == 1:
                raise
            scan.back_to(mark)
            faults.truncate(count)
            faults.add(source.part_name(part), error.message)
            bad_parts.append(part)
    skipped = faults.finish(on_bad, scan.documents + scan.conversations)
    _check_kind(source.name, scan.documents, scan.conversations, skipped)
    return scan.arrays(skipped, bad_parts)


def _check_kind(path: str, documents: int, conversations: int, skipped: int) -> None:
    if documents and conversations:
        raise DataError(
            f"'{path}' holds both plain text ({documents} documents) and conversations "
            f"({conversations})",
            where="data.path",
            allowed="one kind at a time",
            fix="move one kind to a folder of its own",
        )
    if not documents and not conversations:
        raise DataError(
            f"'{path}' holds nothing to learn from",
            where=f"data.path, {skipped} rows left out",
            allowed="text, or requests with answers",
        )
