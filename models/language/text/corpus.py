"""All that a run learns from: documents or exchanges, checked, freed of duplicates, not held."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from models.base import DataError
from models.common import cache
from models.common.faults import Faults, OnBad
from models.language.text.index import Index, Scan, exchanges_in
from models.language.text.records import Conversation, Document, Exchange, Record
from models.language.text.sources import Files, Listed, Source

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
        faults = Faults()
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
    scan, faults = Scan(), Faults()
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
            faults.back_to(count)
            faults.add(source.part_name(part), error.message)
            bad_parts.append(part)
    skipped = faults.settle(on_bad, scan.documents + scan.conversations)
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
