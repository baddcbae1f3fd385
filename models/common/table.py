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

from gearshift.models.base import DataError
from gearshift.models.common.data_files import check_expansion, check_reader
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
_STRAY = "a quote that is not closed or not doubled"
_FIX = 'close each quote, and double those within a cell in quotes ("6"" nails")'
_IS_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)
_QUOTED = re.compile(r'"((?:[^"]|"")*)"')
_HEAD = 1 << 16
"""Characters in which a header ends."""
_ELEMENT = re.compile(rb"<(?:\w+:)?(f|mergeCell)[ />]")
_LONGEST_TAG = 32
_CHUNK = 1 << 20
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
        self.header = [text_of(name).strip(_INVISIBLE) for name in header]
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
                    f"the header of '{self.name}' has {_STRAY}: {cells}",
                    where=f"{self.file.path}:{line}",
                    hint=_FIX,
                )
            is_of_excel = cells[:1] == ["sep="]  # names the delimiter
            if not is_of_excel and not _is_blank(cells):
                return line, cells
        return 1, ()

    def _rows_of_text(self) -> Iterator[tuple[int, Sequence[Any] | csv.Error]]:
        """Rows, each with the number of its first line, and the errors of those that do not parse.

        After an error the next line begins a row.
        """
        self.file.first_line()  # raises DataError if the file is empty
        head = next(self.file.chunks())[:_HEAD]
        self._delimiter = _delimiter(head, self.file)
        csv.field_size_limit(_LONGEST_CELL)
        lines = self.file.lines_with_ends()
        # Strict: otherwise a quote in the middle of a cell would join rows without a word.
        reader = csv.reader(lines, delimiter=self._delimiter, strict=True)
        line = 1
        while True:
            try:
                yield line, next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield line, csv.Error(f"{error}; up to line {reader.line_num}")
            line = reader.line_num + 1

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
            with ZipFile(path) as parts:
                unpacked = sum(part.file_size for part in parts.infolist())
                check_expansion(path, unpacked)
                elements = _elements(parts)
            is_merged = b"mergeCell" in elements
            with closing(load_workbook(path, read_only=not is_merged, data_only=True)) as book:
                self._sheets = [sheet.title for sheet in book.worksheets]
                sheet = book.worksheets[0]
                if is_merged:
                    _fill_merged(sheet)
                else:
                    sheet.reset_dimensions()  # some programs write wrong ones
                missing = _formulas_without_value(path) if b"f" in elements else 0
                if not missing:
                    yield from enumerate(sheet.iter_rows(values_only=True), start=1)
        if missing:
            raise DataError(
                f"{missing} formulas of '{path.name}' have no stored value",
                where=str(path),
                allowed="a workbook that a spreadsheet program has computed",
                hint="open it in a spreadsheet program, and save it again or as CSV",
            )

    def rows(self, bad_records: BadRecords) -> Iterator[tuple[int, Sequence[Any]]]:
        """Line and cells of each row, as many as columns; blank rows are left out. Once only.

        A row of text with another number of cells is a bad record, as is one with a stray quote, up
        to the line where it ends. Raises DataError.
        """
        width = len(self.header)
        for line, cells in self._rows:
            where = f"{self.name}:{line}"
            if isinstance(cells, csv.Error):
                bad_records.add(where, f"{_STRAY}: {cells}", _FIX)
                continue
            if _is_blank(cells) and (self._is_sheet or width > 1):
                continue
            if self._is_sheet:
                missing = [None] * (width - len(cells))
                cells = [*cells[:width], *missing]
            elif _is_blank(cells[width:]):
                cells = cells[:width]  # a delimiter at the end of each row
            if len(cells) == width:
                yield line, cells
            elif cells:
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
        if len(self._sheets) > 1:
            notes.append(f"the first of its {len(self._sheets)} sheets: '{self._sheets[0]}'")
        return notes


def _elements(parts: ZipFile) -> set[bytes]:
    """Which of the elements for formulas and for merged cells the sheets of a workbook have."""
    found = set()
    for name in parts.namelist():
        if not name.startswith("xl/worksheets/"):
            continue
        with parts.open(name) as file:
            end = b""
            while chunk := file.read(_CHUNK):
                found.update(_ELEMENT.findall(end + chunk))
                end = chunk[-_LONGEST_TAG:]
    return found


def _fill_merged(sheet: Any) -> None:
    """Write the value of a merged cell into each of its rows, as a spreadsheet program shows it."""
    for merged in list(sheet.merged_cells.ranges):
        value = sheet.cell(merged.min_row, merged.min_col).value
        sheet.unmerge_cells(str(merged))
        for row in range(merged.min_row, merged.max_row + 1):
            sheet.cell(row, merged.min_col).value = value


def _formulas_without_value(path: Path) -> int:
    """How many cells of the first sheet have a formula that no program has computed."""
    from openpyxl import load_workbook

    count = 0
    with (
        closing(load_workbook(path, read_only=True)) as formulas,
        closing(load_workbook(path, read_only=True, data_only=True)) as values,
    ):
        sheets = [formulas.worksheets[0], values.worksheets[0]]
        for sheet in sheets:
            sheet.reset_dimensions()
        for cells in zip(*sheets, strict=True):
            for formula, value in zip(*cells, strict=True):
                is_empty = value.value is None and value.data_type != "str"  # not of an empty text
                count += formula.data_type == "f" and is_empty
    return count


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
