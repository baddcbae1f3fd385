"""Tables of text and of spreadsheets, and the setting data.columns for their columns."""

from __future__ import annotations

import csv
import json
import re
import shlex
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from math import nan
from pathlib import Path
from string import whitespace
from typing import Any
from zipfile import ZipFile

from gearshift.models.base import DataError
from gearshift.models.common.data_files import check_expansion, check_reader, unreadable_file
from gearshift.models.common.data_reports import IGNORE, BadRecords, library_errors
from gearshift.models.common.text_file import TextFile

Meanings = Mapping[str, str]
"""What columns mean, by their names."""


def text_of(cell: object) -> str:
    """The text in a cell, without space around it; empty for none."""
    return "" if cell is None else str(cell).strip()


def renamed(header: Sequence[object], declared: Meanings) -> list[str]:
    """The names of the columns of a table, replaced by their meanings; empty if ignored."""
    meanings = []
    for cell in header:
        name = text_of(cell)
        meaning = declared.get(name.lower(), name)
        meanings.append("" if meaning == IGNORE else meaning)
    return meanings


def columns_option(meanings: Meanings) -> str:
    """The option that sets the meaning of each column, quoted for a shell."""
    items = [f"{name}={meaning}" for name, meaning in meanings.items()]
    return f"--set {shlex.quote(f'data.columns={json.dumps(items, ensure_ascii=False)}')}"


DELIMITERS = ",;\t|"
SHEET = ".xlsx"
SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", SHEET)
MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "-"})
"""Cells without a number, in lower case."""
_LONGEST_CELL = 1 << 28
"""Characters; a longer cell is one whose quote is not closed."""
_FIX = 'close each quote, and double those within a cell in quotes ("6"" nails")'
_IS_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)
_QUOTED = re.compile(r'"((?:[^"]|"")*)"')
_HEAD = 1 << 16
"""Characters in which a header ends."""
_INVISIBLE = f"{whitespace}\xa0\u200b\ufeff"
"""Characters around the name of a column, of web pages and of joined files."""


def is_table(path: Path) -> bool:
    """Whether a file is a table by its name."""
    return path.name.lower().endswith(SUFFIXES)


class Table:
    """A table of text, or the first sheet of a spreadsheet, read row by row. Source: RFC 4180."""

    def __init__(self, file: TextFile) -> None:
        """Reads the header. Raises DataError if there is none."""
        self.file = file
        self.name = file.name
        self._marks = set[str]()
        self._sheets = [""]
        self._is_sheet = file.path.suffix.lower() == SHEET
        self._delimiter = ""
        """A sheet need not store empty cells at the end of a row, and has no delimiter."""
        self._rows = self._rows_of_sheet() if self._is_sheet else self._rows_of_text()
        self.header_line, header = self._read_header()
        self.header = [name.strip(_INVISIBLE) if isinstance(name, str) else name for name in header]
        """The names of the columns."""
        while len(self.header) > 1 and not self.header[-1] and not self._is_sheet:
            self.header.pop()  # a delimiter at the end of each row
        if not self.header:
            raise DataError(f"'{self.name}' has an empty first sheet", where=str(file.path))

    def _read_header(self) -> tuple[int, Sequence[Any]]:
        """The first row that is not blank, and its line. Raises DataError for a stray quote."""
        for line, cells in self._rows:
            if isinstance(cells, csv.Error):
                raise DataError(
                    f"the header of '{self.name}' has a quote that is not closed or not doubled: "
                    f"{cells}",
                    where=f"{self.file.path}:{line}",
                    allowed='a name in quotes, in which each quote is doubled: "6"" nails"',
                    hint=f"close or double the quote of line {line}",
                )
            is_of_excel = cells[:1] == ["sep="]  # names the delimiter
            if not is_of_excel and not _is_blank(cells):
                return line, cells
        return 1, ()

    def _rows_of_text(self) -> Iterator[tuple[int, Sequence[Any] | csv.Error]]:
        """Rows, each with the number of its first line, and the errors of those that do not parse.

        After an error the next line begins a row: a stray quote may have taken in many. A line with
        an odd number of quotes is then still the rest of the damaged row.
        """
        self.file.first_line()  # raises DataError if the file is empty
        head = next(self.file.chunks())[:_HEAD]
        self._delimiter = _delimiter(head, self.file)
        csv.field_size_limit(_LONGEST_CELL)
        lines = self.file.lines_with_ends()
        again: deque[str] = deque()
        """Lines to parse once more: those after the first one of a damaged row."""
        line = 1
        error: csv.Error | None = None
        row_lines: list[str] = []
        """Of the row that is parsed."""

        def next_lines() -> Iterator[str]:
            while True:
                text = again.popleft() if again else next(lines, "")
                if not text:
                    return
                row_lines.append(text)
                yield text

        while True:
            # Strict: otherwise a quote in the middle of a cell would join rows without a word.
            reader = csv.reader(
                next_lines(),
                delimiter=self._delimiter,
                strict=True,
            )
            try:
                for row in reader:
                    if "".join(row_lines).count('"') % 2 == 0:
                        error = None  # otherwise the rest of the damaged row
                    yield line, row if error is None else error
                    line += len(row_lines)
                    row_lines.clear()
                return
            except csv.Error as raised:
                error = raised
                yield line, error
                # A quote that is not closed took in all that follows: parse that again.
                again.extendleft(reversed(row_lines[1:]))
                line += 1
                row_lines.clear()

    def _rows_of_sheet(self) -> Iterator[tuple[int, Sequence[Any] | csv.Error]]:
        """Rows of the first sheet, with their numbers. Raises DataError."""
        path = self.file.path
        check_reader("openpyxl", path)
        from openpyxl import load_workbook

        with library_errors(
            "the workbook cannot be read",
            str(path),
            allowed="a workbook (.xlsx) that opens in a spreadsheet program",
            hint="open it in a spreadsheet program, and save it again or as CSV",
        ):
            try:
                with ZipFile(path) as parts:
                    unpacked = sum(part.file_size for part in parts.infolist())
                check_expansion(path, unpacked)
                book = load_workbook(path, read_only=True, data_only=True)
            except OSError as error:
                raise unreadable_file(path, error) from None
            with closing(book):
                self._sheets = [sheet.title for sheet in book.worksheets]
                yield from enumerate(book.worksheets[0].iter_rows(values_only=True), start=1)

    def rows(self, bad_records: BadRecords) -> Iterator[tuple[int, Sequence[Any]]]:
        """Line and cells of each row, as many as columns; blank rows are left out. Once only.

        A row of text with another number of cells is a bad record, as is one with a stray quote, up
        to the next row that has all cells. Raises DataError.
        """
        width = len(self.header)
        is_damaged = False
        for line, cells in self._rows:
            where = f"{self.name}:{line}"
            if isinstance(cells, csv.Error):
                if not is_damaged:
                    problem = f"a quote that is not closed or not doubled: {cells}"
                    bad_records.add(where, problem, _FIX)
                is_damaged = True
                continue
            if _is_blank(cells) and (self._is_sheet or width > 1):
                continue
            if self._is_sheet:
                missing = [None] * (width - len(cells))
                cells = [*cells[:width], *missing]
            elif _is_blank(cells[width:]):
                cells = cells[:width]  # a delimiter at the end of each row
            if len(cells) == width:
                is_damaged = False
                yield line, cells
            elif cells and not is_damaged:  # else a line of the damaged row
                bad_records.add(where, f"{len(cells)} of {width} columns")

    def number(self, cell: Any, name: str) -> float:
        """The number in a cell of the column `name`; NaN for none. Raises ValueError.

        A table has either decimal points or decimal commas.
        """
        if isinstance(cell, int | float):
            return float(cell)
        text = text_of(cell)
        if text.lower() in MISSING:
            return nan
        number = text if self._delimiter == "," else text.replace(",", ".")
        if not _IS_NUMBER.fullmatch(number):
            raise ValueError(f"{name} '{cell}' is not a number")
        self._marks |= {*".,"} & {*text}
        if len(self._marks) > 1:
            raise ValueError(f"{name} '{text}': the table has decimal commas and decimal points")
        return float(number)

    @property
    def notes(self) -> list[str]:
        """What was assumed of the file: complete once it was read."""
        notes = []
        if self.file.note:
            notes.append(self.file.note)
        if "," in self._marks:
            notes.append("decimal comma")
        first, *others = self._sheets
        if others:
            ending = "s" if len(others) > 1 else ""
            notes.append(f"sheet '{first}'; {len(others)} other sheet{ending} not read")
        return notes


def _delimiter(head: str, file: TextFile) -> str:
    """The delimiter of the header, which begins `head`; that of the suffix if it has none.

    Raises DataError if it has several.
    """
    lines = _QUOTED.sub(lambda cell: "x" if cell[1].strip() else "", head).split("\n")
    header = next((line for line in lines if line.strip(DELIMITERS + _INVISIBLE)), "")
    delimiters = [delimiter for delimiter in DELIMITERS if delimiter in header]
    if len(delimiters) > 1:
        raise DataError(
            f"the header of '{file.path}' has several delimiters: "
            f"{' '.join(map(repr, delimiters))}",
            where=f"{file.path}:{lines.index(header) + 1}",
            allowed="one delimiter, and other ones in quotes",
            hint="put names with delimiters into quotes",
        )
    if delimiters:
        return delimiters[0]
    return "\t" if ".tsv" in file.path.name.lower() else ","


def _is_blank(cells: Sequence[Any]) -> bool:
    return not any(map(text_of, cells))
