"""Files of text, conversations and tables as a source of records."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from models.base import DataError
from models.common.data_files import BadRecords, identity, unreadable_file
from models.common.text_file import TextFile
from models.language.readers import plain_text
from models.language.readers.columns import RawRow, RowReader
from models.language.readers.plain_text import Kind, file_kind, find_files
from models.language.readers.records import Record
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


def rows_of(file: TextFile, name: str, bad_records: BadRecords) -> Iterator[RawRow] | None:
    """The rows of a file, as training and use read them; None: it is a text. Raises DataError."""
    kind = file_kind(file.path)
    return _ROWS[kind](file, name, bad_records) if kind in _ROWS else None


class FileSource:
    """Files under a path; line N of `answers` answers line N of the path."""

    def __init__(self, path: Path, answers: Path | None, columns: Mapping[str, str]) -> None:
        """`columns`: see columns_in. Raises DataError if there is nothing to read."""
        self.name, self._path, self._answers = str(path), path, answers
        self._columns = columns
        self.note = ""
        if answers is None:
            self._files, self.ignored = find_files(path, has_rows)
        else:
            self._files, self.ignored = _two_files(path, answers), 0
        self.size, self.stamp = self._stat_files()
        kinds = {file_kind(file) for file in self._files}
        self.format = "two files" if answers is not None else " and ".join(sorted(kinds))

    @property
    def parts(self) -> int:
        """One part per file; two parallel files are one part."""
        return len(self._files) if self._answers is None else 1

    def part_name(self, part: int) -> str:
        file = self._files[part]
        return file.relative_to(self._path).as_posix() if self._in_folder else file.name

    def read(self, part: int, bad_records: BadRecords) -> Iterator[Record]:
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


def _two_files(path: Path, answers: Path) -> list[Path]:
    for key, file in (("data.path", path), ("data.answers", answers)):
        if not file.is_file():
            raise DataError(
                f"{key} '{file}' is not a file",
                where=str(file.absolute()),
                allowed="two files: line N of data.answers answers line N of data.path",
            )
    return [path, answers]
