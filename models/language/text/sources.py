"""Where records come from: files, or a list; read again at each pass, never held."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from models.base import DataError
from models.common.faults import Faults
from models.common.paths import no_format, unreadable
from models.language.formats import FORMATS
from models.language.text.readers import files, plain_text, suffixes
from models.language.text.readers.json_lines import read_json_lines
from models.language.text.readers.pairs import read_csv, read_parallel
from models.language.text.readers.text_file import TextFile, has_mark
from models.language.text.records import Record


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

    def read(self, part: int, faults: Faults) -> Iterator[Record]:
        """The records of a part; rows that cannot be used go to `faults`. Raises DataError."""

    def stamp_now(self) -> str:
        """`stamp` as it would be if the source were opened now. Raises DataError."""


class Files:
    """The files of a path; with `answers`, line N of it answers line N of the path."""

    def __init__(self, path: Path, answers: Path | None) -> None:
        """Raises DataError if there is nothing to read."""
        self.name, self._path, self._answers = str(path), path, answers
        if answers is None:
            self._files, self.ignored = files.find(path)
            if self._files == [path] and _is_binary(path):
                raise no_format(path, FORMATS)
        else:
            self._files, self.ignored = _two_files(path, answers), 0
        self.size, self.stamp = self._look()
        kinds = {suffixes.kind(file) for file in self._files}
        self.format = "two files" if answers is not None else " and ".join(sorted(kinds))

    @property
    def parts(self) -> int:
        """One a file; two parallel files are one."""
        return len(self._files) if self._answers is None else 1

    def part_name(self, part: int) -> str:
        """The file's path below the folder, or its name."""
        file = self._files[part]
        return file.relative_to(self._path).as_posix() if self._in_folder else file.name

    def read(self, part: int, faults: Faults) -> Iterator[Record]:
        """See Source."""
        if self._answers is not None:
            return read_parallel(self._path, self._answers, faults)
        file, name = TextFile(self._files[part]), self.part_name(part)
        first, suffix = file.first_line(), file.path.suffix.lower()
        if suffix in suffixes.JSONL:
            return read_json_lines(file, name, faults)
        if suffix in suffixes.CSV:
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
                raise unreadable(file, error) from None
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
    if file.suffix.lower() in suffixes.SUFFIXES:
        return False
    try:
        with file.open("rb") as opened:
            head = opened.read(4096)
    except OSError as error:
        raise unreadable(file, error) from None
    return b"\0" in head and not has_mark(head)


class Listed:
    """Records that are in memory."""

    format, size, stamp, parts = "embedded", 0, "", 1

    def __init__(self, name: str, records: Sequence[Record]) -> None:
        self.name, self.ignored, self._records = name, 0, records

    def part_name(self, part: int) -> str:
        """See Source."""
        return self.name

    def read(self, part: int, faults: Faults) -> Iterator[Record]:
        """See Source."""
        return iter(self._records)

    def stamp_now(self) -> str:
        """See Source."""
        return self.stamp
