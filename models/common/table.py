"""Tables of text and of spreadsheets, and the setting data.columns for their columns."""

from __future__ import annotations

import csv
import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from math import nan
from pathlib import Path
from string import whitespace
from typing import Any
from zipfile import ZipFile

from models.base import DataError
from models.common.data_files import IGNORE, BadRecords, check_expansion, library_errors, unreadable_file
from models.common.text_file import TextFile

_IS_PLAIN = re.compile(r"[^\[\]{},:#\"'&*!|>%@`]+")
"""What needs no quotes in a list of YAML."""


def renamed(header: Sequence[object], declared: Mapping[str, str]) -> list[str]:
    """The names of the columns of a table, replaced by their meanings; empty if ignored."""
    names = [str("" if name is None else name).strip() for name in header]
    meanings = (declared.get(name.lower(), name) for name in names)
    return ["" if meaning == IGNORE else meaning for meaning in meanings]


def columns_option(meanings: Mapping[str, str]) -> str:
    """The option that sets the meaning of each column, quoted for a shell."""
    items = (f"{name}={meaning}" for name, meaning in meanings.items())
    quoted = (i if _IS_PLAIN.fullmatch(i) else json.dumps(i, ensure_ascii=False) for i in items)
    value = f"data.columns=[{', '.join(quoted)}]"
    return f"--set {shlex.quote(value)}"


DELIMITERS = ",;\t|"
SHEET = ".xlsx"
SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", SHEET)
MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "-"})
"""Cells without a number, in lower case."""
_LONGEST_CELL = 1 << 28
"""Characters; a longer cell is one whose quote is not closed."""
_IS_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)
_QUOTED = re.compile(r'"((?:[^"]|"")*)"')
_HEAD = 1 << 16
"""Characters in which a header ends."""
_INVISIBLE = f"{whitespace}\xa0\u200b\ufeff"
"""Characters around the name of a column, of web pages and of joined files."""


def is_table(path: Path) -> bool:
    """Whether a file is a table by its name."""
    return path.name.lower().endswith(SUFFIXES)


def open_table(path: Path, name: str | None = None) -> Table:
    """The table in a file; `name` names it in messages. Reads the disk. Raises DataError."""
    if path.suffix.lower() == SHEET:
        return SheetTable(path, name or path.name)
    return TextTable(TextFile(path), name or path.name)


class TextTable:
    """A table of text, read row by row. Source: RFC 4180."""

    def __init__(self, file: TextFile, name: str) -> None:
        """Reads the header. Raises DataError if there is none."""
        self.file, self.name = file, name
        file.first_line()  # raises DataError if the file is empty
        delimiter = _delimiter(next(file.chunks())[:_HEAD], file)
        csv.field_size_limit(_LONGEST_CELL)
        # Strict, and no row after an error, where the reader would go on inside of a cell.
        self._reader = csv.reader(file.lines_with_ends(), delimiter=delimiter, strict=True)
        filled = (row for row in self._rows() if not _is_blank(row[1]))
        self.header_line, header = next(filled, (1, []))
        self.header: list[str] = [column.strip(_INVISIBLE) for column in header]
        """The names of the columns."""
        while len(self.header) > 1 and not self.header[-1]:
            self.header.pop()  # a delimiter at the end of each row
        self._numbers = _Numbers(delimiter)
        self.number = self._numbers.parse

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """Rows, each with the number of its first line. Raises DataError for a stray quote."""
        line = self._reader.line_num + 1
        try:
            for row in self._reader:
                yield line, row
                line = self._reader.line_num + 1
        except csv.Error as error:
            raise DataError(
                f"'{self.name}' has a quoted cell that does not end, or not at a delimiter: {error}",
                where=f"{self.file.path}:{line}",
                allowed='a cell in quotes, in which each quote is doubled: "6"" nails"',
                fix=f"close or double the quote of the row that begins in line {line}",
            ) from None

    def rows(self, bad_records: BadRecords) -> Iterator[tuple[int, Sequence[Any]]]:
        """Line and cells of each row, as many as columns; blank rows are left out. Once only.

        A row of text with another number of cells is a bad record. Raises DataError.
        """
        width = len(self.header)
        for line, cells in self._rows():
            is_blank = _is_blank(cells)
            if len(cells) > width and _is_blank(cells[width:]):
                del cells[width:]  # a delimiter at the end of each row
            if len(cells) == width and (width == 1 or not is_blank):
                yield line, cells
            elif not is_blank:
                bad_records.add(f"{self.name}:{line}", f"{len(cells)} of {width} columns")

    @property
    def notes(self) -> Sequence[str]:
        """What was assumed of the file: complete once it was read."""
        return [note for note in (self.file.note, *self._numbers.notes) if note]


def _delimiter(head: str, file: TextFile) -> str:
    """The delimiter of the header, which begins `head`; that of the suffix if it has none.

    Raises DataError if it has several.
    """
    lines = _QUOTED.sub(lambda cell: "x" if cell[1].strip() else "", head).split("\n")
    header = next((line for line in lines if line.strip(DELIMITERS + _INVISIBLE)), "")
    delimiters = [delimiter for delimiter in DELIMITERS if delimiter in header]
    if len(delimiters) > 1:
        raise DataError(
            f"the header of '{file.path}' has several delimiters: {' '.join(map(repr, delimiters))}",
            where=f"{file.path}:{lines.index(header) + 1}",
            allowed="one delimiter, and other ones in quotes",
            fix="put names with delimiters into quotes",
        )
    return delimiters[0] if delimiters else "\t" if ".tsv" in file.path.name.lower() else ","


class _Numbers:
    """Numbers of the cells of one table, which has either decimal points or decimal commas."""

    def __init__(self, delimiter: str | None) -> None:
        self._allows_comma = delimiter != ","
        self._marks: set[str] = set()

    @property
    def notes(self) -> list[str]:
        return ["decimal comma"] if "," in self._marks else []

    def parse(self, cell: Any, name: str) -> float:
        """The number in a cell of the column `name`; NaN for none. Raises ValueError."""
        if isinstance(cell, int | float):
            return float(cell)
        text = "" if cell is None else str(cell).strip()
        if text.lower() in MISSING:
            return nan
        number = text.replace(",", ".") if self._allows_comma else text
        if not _IS_NUMBER.fullmatch(number):
            raise ValueError(f"{name} '{cell}' is not a number")
        self._marks.update(mark for mark in ".," if mark in text)
        if len(self._marks) > 1:
            raise ValueError(
                f"{name} '{text}': the table has decimal commas and decimal points; one is allowed"
            )
        return float(number)


class SheetTable:
    """The first sheet of a spreadsheet; as TextTable."""

    def __init__(self, path: Path, name: str) -> None:
        """Reads the header. Raises DataError if it is no workbook, or empty."""
        self._path, self.name, self._sheets = path, name, [""]
        self._cells = enumerate(self._read(), start=1)
        self.header: Sequence[Any]
        filled = (row for row in self._cells if not _is_blank(row[1]))
        self.header_line, self.header = next(filled, (1, ()))
        if not self.header:
            raise DataError(f"'{name}' has an empty first sheet", where=str(path))
        self._numbers = _Numbers(None)
        self.number = self._numbers.parse

    def _read(self) -> Iterator[Sequence[Any]]:
        """The rows of the sheet. Raises DataError."""
        from openpyxl import load_workbook

        message, allowed = (
            "the workbook cannot be read",
            "a workbook (.xlsx) that opens in a spreadsheet program",
        )
        fix = "open it in a spreadsheet program, and save it again or as CSV"
        with library_errors(message, str(self._path), allowed=allowed, fix=fix):
            try:
                with ZipFile(self._path) as parts:
                    unpacked = sum(part.file_size for part in parts.infolist())
                check_expansion(self._path, unpacked)
                book = load_workbook(self._path, read_only=True, data_only=True)
            except OSError as error:
                raise unreadable_file(self._path, error) from None
            with closing(book):
                self._sheets = [sheet.title for sheet in book.worksheets]
                yield from book.worksheets[0].iter_rows(values_only=True)

    def rows(self, bad_records: BadRecords) -> Iterator[tuple[int, Sequence[Any]]]:
        """As those of TextTable."""
        width = len(self.header)
        for line, cells in self._cells:
            if not _is_blank(cells):
                # A sheet need not store empty cells at the end of a row.
                yield line, (*cells[:width], *[None] * (width - len(cells)))

    @property
    def notes(self) -> Sequence[str]:
        """What was assumed of the file: complete once it was read."""
        first, count = self._sheets[0], len(self._sheets) - 1
        others = f"{count} other sheet{'s are' if count > 1 else ' is'} not read"
        return [*self._numbers.notes, *([f"sheet '{first}'; {others}"] if count else [])]


Table = TextTable | SheetTable


def _is_blank(cells: Sequence[Any]) -> bool:
    return all(cell is None or not str(cell).strip() for cell in cells)
