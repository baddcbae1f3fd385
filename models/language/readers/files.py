"""The files under a path as a source of records."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal

from gearshift.models.base import DataError
from gearshift.models.common import data_files
from gearshift.models.common.data_files import BadRecords, identity, unreadable_file
from gearshift.models.common.text_file import GZIP, TextFile
from gearshift.models.language.readers import plain_text, rows
from gearshift.models.language.readers.columns import RowReader
from gearshift.models.language.readers.records import Record, exchanges
from gearshift.models.language.readers.rows import Row

FORMATS = (
    "CSV with columns for a request and an answer, or with text",
    "JSONL with keys for a request and an answer, with messages, or with text",
    "a JSON array of such objects",
    "Parquet with such columns",
    "plain text, documentation and source code",
)
"""Formats of the family, as `list` and error messages name them."""
Kind = Literal["CSV", "JSONL", "JSON", "Parquet", "text"]
_KINDS: Mapping[str, Kind] = {
    ".csv": "CSV", ".tsv": "CSV", ".jsonl": "JSONL", ".ndjson": "JSONL",
    ".json": "JSON", ".parquet": "Parquet",
}  # fmt: skip
SUFFIXES = _KINDS.keys() | {
    ".txt", ".text", ".md", ".rst", ".tex", ".py", ".pyi", ".c", ".h", ".cc", ".cpp", ".hpp",
    ".cu", ".java", ".js", ".ts", ".go", ".rs", ".rb", ".sh", ".r", ".jl", ".lua", ".sql",
    ".html", ".xml", ".css", ".toml", ".yaml", ".yml",
}  # fmt: skip
_ROWS: Mapping[Kind, Callable[[TextFile, str, BadRecords], Iterator[Row]]] = {
    "CSV": rows.table_rows,
    "JSONL": rows.json_rows,
    "JSON": rows.array_rows,
    "Parquet": rows.parquet_rows,
}


def suffix_of(file: Path) -> str:
    """The suffix in lower case, without that of gzip."""
    return Path(file.name.lower().removesuffix(GZIP)).suffix


def file_kind(file: Path) -> Kind:
    """Kind of a file by its suffix."""
    return _KINDS.get(suffix_of(file), "text")


def rows_of(file: TextFile, name: str, bad_records: BadRecords) -> Iterator[Row] | None:
    """The rows of a file, as training and use read them; None: it is a text. Raises DataError."""
    kind = file_kind(file.path)
    return _ROWS[kind](file, name, bad_records) if kind in _ROWS else None


class FileSource:
    """Files under a path, one part each; or line N of `answers` answers line N of the path."""

    def __init__(self, path: Path, answers: Path | None, columns: Mapping[str, str]) -> None:
        """`columns`: see columns_in. Raises DataError if there is nothing to read."""
        self.name = str(path)
        self._path = path
        self._answers = answers
        self._columns = columns
        self.note = ""
        """The encoding that was assumed of the part that was read last."""
        self.is_cut = False
        """Whether each text comes in parts of whole lines."""
        self._files, self.ignored = ([path], 0) if answers else _find_files(path)
        self.parts = len(self._files)
        self.size, self.stamp = self._stat_files()
        kinds = {file_kind(file) for file in self._files}
        self.format = "two files" if answers is not None else " and ".join(sorted(kinds))

    def part_name(self, part: int) -> str:
        """Name of a part for messages."""
        file = self._files[part]
        return file.name if file == self._path else file.relative_to(self._path).as_posix()

    def cut(self) -> None:
        """Cut texts into parts from now on; caches of whole texts do not fit any more."""
        self.is_cut = True
        self.size, self.stamp = self._stat_files()

    def read(self, part: int, bad_records: BadRecords) -> Iterator[Record]:
        """The records of a part; invalid rows go to `bad_records`. Raises DataError."""
        records = self._read(part, bad_records)
        if self.is_cut:
            shortest = self.size // self.parts // plain_text.PIECES
            records = plain_text.pieces(records, min(plain_text.PIECE, shortest))
        yield from records

    def _read(self, part: int, bad_records: BadRecords) -> Iterator[Record]:
        file = TextFile(self._files[part])
        name = self.part_name(part)
        if self._answers is not None:
            answers = TextFile(self._answers)
            yield from plain_text.read_parallel(file, answers, bad_records)
            self.note = file.note or answers.note
            return
        if (found := rows_of(file, name, bad_records)) is None:
            read = plain_text.read_documents if file.path == self._path else plain_text.read_whole
            yield from read(file, name)
        else:
            reader = RowReader(name, self._columns, bad_records)
            for row in found:
                content = reader.content(row)
                where = f"{name}:{row.line}"
                if isinstance(content, str):
                    yield from plain_text.records_of(content.split("\n"), f"{name}#{row.line:09}")
                elif content is not None:
                    yield from (answered := exchanges(content, where))
                    if not answered:
                        bad_records.add(where, "no request with an answer")
        self.note = file.note

    def current_stamp(self) -> str:
        """`stamp` of the files as they are now. Raises DataError."""
        return self._stat_files()[1]

    def _stat_files(self) -> tuple[int, str]:
        """Bytes of the files, and a digest of the columns and of their names, sizes and times."""
        digest = hashlib.sha256(os.fsencode(self._path.absolute()))
        total = 0
        digest.update(repr((self.is_cut, sorted(self._columns.items()))).encode())
        for file in [*self._files, *filter(None, [self._answers])]:
            try:
                file_identity = identity(file)
            except OSError as error:
                raise unreadable_file(file, error) from None
            total += file_identity[0]
            digest.update(os.fsencode(file) + f"\0{file_identity}\0".encode())
        return total, digest.hexdigest()


def _find_files(path: Path) -> tuple[list[Path], int]:
    """Files to read under `path`, sorted, and the number of ignored files.

    A single file may have any suffix; a folder gives its visible files of a known suffix at any
    depth, of JSON the arrays. Raises DataError if there is none or a folder is not readable.
    """
    allowed = "a file or folder of text, JSON, CSV or Parquet; embedded:python, embedded:commands"
    if not data_files.existing_path(str(path), allowed).is_dir():
        return [path], 0
    files = data_files.files(path)
    chosen = [
        f for f in files if suffix_of(f) in SUFFIXES and (file_kind(f) != "JSON" or _is_array(f))
    ]
    if not chosen:
        raise DataError(
            f"data.path '{path}' has no file with a known suffix ({len(files)} other files)",
            allowed=" ".join(sorted(SUFFIXES)),
            fix="give the path of one file: a single file may have any suffix",
        )
    return chosen, len(files) - len(chosen)


def _is_array(file: Path) -> bool:
    """Whether a file begins as a JSON array. Reads its first part; False if it cannot be read."""
    try:
        return next(TextFile(file).chunks()).lstrip().startswith("[")
    except DataError:
        return False
