"""Sources of records: the files under a path, or records in memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from models.base import DataError
from models.common.data_files import BadRecords, identity, unreadable_file
from models.common.text_file import TextFile
from models.language.readers import plain_text
from models.language.readers.columns import RawRow, RowReader
from models.language.readers.plain_text import Kind, file_kind, find_files
from models.language.readers.records import Record
from models.language.readers.tables import json_line_rows, json_rows, parquet_rows, read_parallel, table_rows

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


class RecordSource:
    """Records in memory; one part."""

    format, size, stamp, parts, ignored, note = "embedded", 0, "", 1, 0, ""

    def __init__(self, name: str, records: Sequence[Record]) -> None:
        self.name, self._records = name, records

    def part_name(self, part: int) -> str:
        return self.name

    def read(self, part: int, bad_records: BadRecords) -> Iterator[Record]:
        return iter(self._records)

    def current_stamp(self) -> str:
        return self.stamp


class FileSource:
    """Files under a path, one part each; or line N of `answers` answers line N of the path."""

    def __init__(self, path: Path, answers: Path | None, columns: Mapping[str, str]) -> None:
        """`columns`: see columns_in. Raises DataError if there is nothing to read."""
        self.name, self._path, self._answers, self._columns = str(path), path, answers, columns
        self.note = ""
        """The encoding that was assumed of the part that was read last."""
        self._files, self.ignored = find_files(path)
        for file in (path, answers) if answers is not None else ():
            if not file.is_file():
                raise DataError(
                    f"'{file}' is not a file",
                    where=f"data.path and data.answers, {file.absolute()}",
                    allowed="two files: line N of data.answers answers line N of data.path",
                )
        self.size, self.stamp = self._stat_files()
        kinds = {file_kind(file) for file in self._files}
        self.format = "two files" if answers is not None else " and ".join(sorted(kinds))

    @property
    def parts(self) -> int:
        """Number of parts."""
        return len(self._files)

    def part_name(self, part: int) -> str:
        """Name of a part for messages."""
        file = self._files[part]
        return file.name if file == self._path else file.relative_to(self._path).as_posix()

    def read(self, part: int, bad_records: BadRecords) -> Iterator[Record]:
        """The records of a part; invalid rows go to `bad_records`. Raises DataError."""
        file, name = TextFile(self._files[part]), self.part_name(part)
        if self._answers is not None:
            answers = TextFile(self._answers)
            yield from read_parallel(file, answers, bad_records)
            self.note = file.note or answers.note
            return
        if (rows := rows_of(file, name, bad_records)) is not None:
            reader = RowReader(name, self._columns, bad_records)
            for row in rows:
                yield from reader.records(row)
        else:
            is_single = file.path == self._path
            yield from (plain_text.read_documents if is_single else plain_text.read_whole)(file, name)
        self.note = file.note

    def current_stamp(self) -> str:
        """`stamp` of the files as they are now. Raises DataError."""
        return self._stat_files()[1]

    def _stat_files(self) -> tuple[int, str]:
        """Bytes of the files, and a digest of the columns and of their names, sizes and times."""
        digest, total = hashlib.sha256(os.fsencode(self._path.absolute())), 0
        digest.update(repr(sorted(self._columns.items())).encode())
        for file in self._files if self._answers is None else [self._path, self._answers]:
            try:
                file_identity = identity(file)
            except OSError as error:
                raise unreadable_file(file, error) from None
            total += file_identity[0]
            digest.update(os.fsencode(file) + f"\0{file_identity}\0".encode())
        return total, digest.hexdigest()
