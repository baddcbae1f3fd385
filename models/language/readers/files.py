"""The files under a path as a source of records."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from gearshift.models.base import DataError
from gearshift.models.common import data_files
from gearshift.models.common.data_files import TRAIN, identity, unreadable_file
from gearshift.models.common.data_reports import BadRecords
from gearshift.models.common.table import Meanings
from gearshift.models.common.text_file import TextFile
from gearshift.models.language.readers import plain_text, rows
from gearshift.models.language.readers.columns import contents
from gearshift.models.language.readers.records import Record, exchanges
from gearshift.models.language.readers.rows import file_kind, suffix_of

FORMATS = (
    "CSV with columns for a request and an answer, or with text",
    "JSONL with keys for a request and an answer, with messages, or with text",
    "a JSON array of such objects",
    "Parquet or Arrow with such columns",
    "plain text, documentation and source code",
)
"""Formats of the family, as `list` and error messages name them."""
SUFFIXES = rows.SUFFIXES | {
    ".txt", ".text", ".md", ".rst", ".tex", ".py", ".pyi", ".c", ".h", ".cc", ".cpp", ".hpp",
    ".cu", ".java", ".js", ".ts", ".go", ".rs", ".rb", ".sh", ".r", ".jl", ".lua", ".sql",
    ".html", ".xml", ".css", ".toml", ".yaml", ".yml",
}  # fmt: skip

_TEXTS = {".txt", ".text", ".md"}
_ABOUT = re.compile(r"(readme|licen[cs]e|notice|citation)\b", re.IGNORECASE)
"""Names of files about the rows beside them."""


class FileSource:
    """Files under a path, one part each; or line N of `answers` answers line N of the path."""

    def __init__(
        self,
        path: Path,
        answers: Path | None,
        columns: Meanings,
        *,
        has_one_split: bool = False,
    ) -> None:
        """`columns`: see form_of. Raises DataError if there is nothing to read.

        Of a data set in several splits only the files for training are read, unless
        `has_one_split`: the samples for validation and for the test are a share of them.
        """
        self.name = str(path)
        self._path = path
        self._answers = answers
        self._columns = columns
        self.note = ""
        """The encoding that was assumed of the part that was read last."""
        self.meanings: dict[str, str] = {}
        """What the columns of the rows mean that were read."""
        self.other_splits = ""
        """The splits that are not read, with their numbers of files."""
        if answers is None:
            self._files, self.ignored = _find_files(path)
            if not has_one_split:
                self._leave_other_splits()
            self.format = " and ".join(sorted({file_kind(file) for file in self._files}))
            self.parts = len(self._files)
        else:
            self._files = [path, answers]
            self.ignored = 0
            self.format = "two files"
            self.parts = 1
        self.stamp = self.current_stamp()
        self.size = sum(file.stat().st_size for file in self._files)

    def _leave_other_splits(self) -> None:
        """Keep the files of training, if there are some by their names, as of a data set.

        The name of a folder of texts tells nothing: tests/ of a program is no split.
        """
        names = {data_files.name_in(self._path, file): file for file in self._files}
        kinds = {suffix_of(file) for file in self._files}
        has_rows = not kinds.isdisjoint(rows.SUFFIXES)
        is_flat = kinds <= _TEXTS and not any("/" in name for name in names)
        splits = data_files.by_split([*names])
        kept = [split for split in splits if split.startswith(TRAIN)]
        if not kept or not (has_rows or is_flat):
            return
        files = [names[name] for split in kept for name in splits.pop(split)]
        if len(files) < len(self._files):
            told = [f"{split} ({len(others)} files)" for split, others in splits.items()]
            untold = len(self._files) - len(files) - sum(map(len, splits.values()))
            told += [f"{untold} files that name none"] * (untold > 0)
            self.other_splits = f"{TRAIN}; not read: {', '.join(told)}"
        self._files = sorted(files)

    def part_name(self, part: int) -> str:
        """Name of a part for messages."""
        return data_files.name_in(self._path, self._files[part])

    def read(self, part: int, bad_records: BadRecords) -> Iterator[Record]:
        """The records of a part; invalid rows go to `bad_records`. Raises DataError.

        A text is one document, or several where there are too few files for a split by file.
        """
        file = TextFile(self._files[part], self.part_name(part))
        if self._answers is not None:
            answers = TextFile(self._answers)
            yield from plain_text.read_parallel(file, answers, bad_records)
            self.note = file.note or answers.note
            return
        if file_kind(file.path) != "text":
            yield from self._records_of(file, bad_records)
        elif self.parts < plain_text.FEWEST:
            yield from plain_text.read_documents(file, self.meanings)
        else:
            yield from plain_text.records_of(file.lines(), file.name)
        self.note = file.note

    def _records_of(self, file: TextFile, bad_records: BadRecords) -> Iterator[Record]:
        for line, content in contents(file, self._columns, bad_records, self.meanings):
            if isinstance(content, str):
                yield from plain_text.records_of(content.split("\n"), f"{file.name}#{line:09}")
                continue
            where = f"{file.name}:{line}"
            records = exchanges(content, where)
            yield from records
            if not records:
                bad_records.add(where, "no request with an answer")

    def current_stamp(self) -> str:
        """A digest of the columns, and of the names, sizes and times of the files as they are now.

        Reads the disk. Raises DataError.
        """
        digest = hashlib.sha256(os.fsencode(self._path.absolute()))
        digest.update(repr(sorted(self._columns.items())).encode())
        for file in self._files:
            try:
                file_identity = identity(file)
            except OSError as error:
                raise unreadable_file(file, error) from None
            digest.update(os.fsencode(file) + f"\0{file_identity}\0".encode())
        return digest.hexdigest()


def _find_files(path: Path) -> tuple[list[Path], int]:
    """Files to read under `path`, sorted, and the number of ignored files.

    A single file may have any suffix; a folder gives its visible files of a known suffix at any
    depth, of JSON the arrays, and beside rows no README or license. Raises DataError if there is
    none or a folder is not readable.
    """
    allowed = (
        "a file or folder of text, JSON, CSV, Parquet or Arrow; embedded:python, embedded:commands"
    )
    if not data_files.existing_path(str(path), allowed).is_dir():
        return [path], 0
    files = data_files.files(path)
    chosen = [file for file in files if suffix_of(file) in SUFFIXES and is_data(file)]
    if any(file_kind(file) != "text" for file in chosen):
        chosen = [file for file in chosen if not _ABOUT.match(file.name)]
    if not chosen:
        raise DataError(
            f"data.path '{path}' has no file with a known suffix ({len(files)} other files)",
            allowed=" ".join(sorted(SUFFIXES)),
            hint="give the path of one file: a single file may have any suffix",
        )
    return chosen, len(files) - len(chosen)


def is_data(file: Path) -> bool:
    """Whether a file of a folder is data: of JSON only an array is. Reads its first part.

    False if it cannot be read.
    """
    if file_kind(file) != "JSON":
        return True
    try:
        return next(TextFile(file).chunks()).lstrip().startswith("[")
    except DataError:
        return False
