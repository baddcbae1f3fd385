"""Rows of CSV, JSON and Parquet files, and pairs of two parallel files."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from itertools import count, zip_longest
from typing import Any

from models.base import DataError
from models.common.data_files import BadRecords, check_expansion
from models.common.table import TextTable
from models.common.text_file import TextFile, check_characters, parse_json
from models.language.readers.columns import RawRow
from models.language.readers.records import Conversation, Turn

_BATCH = 16
"""Rows that are decoded at a time: each may be as long as the dictionary of its column."""


def parquet_rows(file: TextFile, name: str, bad_records: BadRecords) -> Iterator[RawRow]:
    """The rows of a Parquet table; their lines are their numbers. `bad_records` gets none.

    Raises DataError for a file that is not Parquet, and if pyarrow is not installed.
    """
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise DataError(
            f"'{name}' needs pyarrow, which is not installed",
            where=f"data.path, {file.path}",
            allowed="JSON, CSV and text need no other package",
            fix="pip install pyarrow",
        ) from None
    try:
        with ParquetFile(file.path) as table:
            groups = (table.metadata.row_group(n) for n in range(table.num_row_groups))
            check_expansion(file.path, sum(group.total_byte_size for group in groups))
            unpacked, rows = 0, count(1)
            for batch in table.iter_batches(_BATCH):
                unpacked += batch.nbytes  # values of a dictionary count as often as they occur
                check_expansion(file.path, unpacked)
                yield from (
                    RawRow(n, n, row) for row, n in zip(batch.to_pylist(), rows, strict=False)
                )
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"'{name}' is not Parquet: {str(error).splitlines()[0]}",
            where=f"data.path, {file.path}",
            allowed="a Parquet file that pyarrow reads",
        ) from None


def table_rows(file: TextFile, name: str, bad_records: BadRecords) -> Iterator[RawRow]:
    """The rows of a table of text.

    A first column without a name is left out: pandas and R write the names of rows into it. Other
    ones are named by their place. Raises DataError.
    """
    table = TextTable(file, name)
    header = [column or f"column {n}" for n, column in enumerate(table.header, start=1)]
    first = 0 if table.header[0] else 1
    column, count = Counter(column.lower() for column in header).most_common(1)[0]
    if count > 1:
        raise DataError(
            f"'{name}' has {count} columns with the name '{column}'",
            where=f"{name}:{table.header_line}",
            allowed="columns with different names",
            fix=f"rename {count - 1} of them in line {table.header_line}",
        )
    for line, cells in table.rows(bad_records):
        fields = dict(zip(header[first:], cells[first:], strict=True))
        yield RawRow(line, line, fields, table.header_line)


def read_parallel(
    requests: TextFile, answers: TextFile, bad_records: BadRecords
) -> Iterator[Conversation]:
    """Read two files; line N of `answers` answers line N of `requests`.

    Raises DataError at the end if the files have different numbers of lines.
    """
    for file in (requests, answers):
        file.first_line()  # raises DataError if the file is empty
    request_lines, answer_lines = (
        (line.removesuffix("\n") for line in file.lines_with_ends()) for file in (requests, answers)
    )
    for line, (request, answer) in enumerate(zip_longest(request_lines, answer_lines), start=1):
        if request is None or answer is None:
            rest = 1 + sum(1 for _ in (request_lines if answer is None else answer_lines))
            counts = [line - 1 + rest * (text is not None) for text in (request, answer)]
            raise DataError(
                f"'{requests.path}' has {counts[0]} lines, '{answers.path}' has {counts[1]}",
                where="data.path and data.answers",
                allowed="two files with the same number of lines",
            )
        where = f"{requests.path.name}:{line}"
        blank = "request" if not request.strip() else "answer" if not answer.strip() else ""
        if blank:
            bad_records.add(where, f"the {blank} is empty")
        else:
            yield Conversation((Turn("user", request), Turn("assistant", answer)), where)


def json_line_rows(file: TextFile, name: str, bad_records: BadRecords) -> Iterator[RawRow]:
    """The object of each line of JSON; blank lines are skipped. Raises DataError."""
    file.first_line()  # raises DataError if the file is empty
    for line, raw in enumerate(file.lines(), start=1):
        if not raw.strip():
            continue
        where = f"{name}:{line}"
        try:
            row = parse_json(raw)
        except json.JSONDecodeError as error:
            bad_records.add(where, f"not JSON: {error.msg} at column {error.colno}")
        except ValueError as error:
            bad_records.add(where, f"not JSON: {error}")
        else:
            if _is_object(row, where, bad_records):
                yield RawRow(line, line, row)


def _is_object(row: object, where: str, bad_records: BadRecords) -> bool:
    """Whether `row` is an object; otherwise a bad record."""
    if not isinstance(row, dict):
        bad_records.add(where, f"{type(row).__name__}, not an object")
    return isinstance(row, dict)


_ROWS = re.compile(r'\s*(\[\s*)?\{\s*"')
_SPACE = re.compile(r"[ \t\n\r]*")
_MARGIN = 16
"""Characters before the end of a part, in which an error may come from the cut: `-Infinit`."""


def has_rows(file: TextFile) -> bool:
    """Whether a JSON file begins with an array of objects, or with an object in one line.

    Reads the first part of the file; False if it cannot be read.
    """
    try:
        head = next(file.chunks()).lstrip()
    except DataError:
        return False
    match = _ROWS.match(head)
    first, line_end, _ = head.partition("\n")
    is_line = first.rstrip().endswith("}") or not line_end  # a line longer than the part
    return match is not None and (match[1] is not None or is_line)


def json_rows(file: TextFile, name: str, bad_records: BadRecords) -> Iterator[RawRow]:
    """The rows of an array, or the object of each line of JSON.

    Holds one row in memory. Raises DataError for text that is not JSON.
    """
    text = _JsonText(file, name)
    first = text.skip_space()
    if first != "[" and (first != "{" or has_rows(file)):
        yield from json_line_rows(file, name, bad_records)
        return
    if first == "{":
        raise DataError(
            f"'{name}' is one object, not an array of rows",
            where=text.where,
            allowed="an array of objects, or one object per line",
        )
    text.at += 1
    number = 0
    separator = "]" if text.skip_space() == "]" else ","
    text.at += separator == "]"
    while separator == ",":
        number += 1
        value, raw = text.value()
        try:
            check_characters(value, raw)
        except ValueError as error:
            bad_records.add(text.where, str(error))
        else:
            if _is_object(value, text.where, bad_records):
                yield RawRow(text.line, number, value)
        separator = text.skip_space()
        if separator not in (",", "]"):
            raise text.error("Expecting ',' or ']'", text.at)
        text.at += 1
    if text.skip_space():
        raise text.error("text after the array", text.at)


class _JsonText:
    """The text of a file, of which one value and the rest of a part are in memory."""

    def __init__(self, file: TextFile, name: str) -> None:
        self.at, self.line = 0, 1
        """Position in the text in memory; line of the last visible character."""
        self._name, self._chunks, self._text = name, file.chunks(), ""
        self._counted = 0
        """Position up to which lines are counted."""
        self._column = 0
        """Characters of the line before the text in memory."""
        self._decode = json.JSONDecoder().raw_decode

    @property
    def where(self) -> str:
        """File and line."""
        return f"{self._name}:{self.line}"

    def skip_space(self) -> str:
        """Go to the next visible character and give it; empty at the end of the file."""
        while True:
            match = _SPACE.match(self._text, self.at)
            assert match is not None
            self.at = match.end()
            if self.at < len(self._text) or not self._load():
                self._count_lines(self.at)
                return self._text[self.at : self.at + 1]

    def value(self) -> tuple[Any, str]:
        """The next value and its text. Raises DataError."""
        self.skip_space()
        while True:
            try:
                value, end = self._decode(self._text, self.at)
            except json.JSONDecodeError as error:
                near_end = error.pos > len(self._text) - _MARGIN
                is_cut = near_end or error.msg.startswith("Unterminated string")
                if not (is_cut and self._load()):
                    raise self.error(error.msg.removesuffix(" at"), error.pos) from None
            except (ValueError, RecursionError) as error:  # a long number; deep nesting
                raise self.error(str(error), self.at) from None
            else:
                raw, self.at = self._text[self.at : end], end
                return value, raw

    def error(self, problem: str, at: int) -> DataError:
        """The error of the character at position `at` of the text in memory."""
        self._count_lines(at)
        line_end = self._text.rfind("\n", 0, at)
        column = at - line_end if line_end >= 0 else self._column + at + 1
        return DataError(
            f"'{self._name}' is not JSON: {problem} at column {column}",
            where=self.where,
            allowed="an array of objects, or one object per line",
        )

    def _count_lines(self, at: int) -> None:
        self.line += self._text.count("\n", self._counted, at)
        self._counted = at

    def _load(self) -> bool:
        """Drop the text before the position, and read at least as much as remains."""
        self._count_lines(self.at)
        line_end = self._text.rfind("\n", 0, self.at)
        self._column = self.at - line_end - 1 if line_end >= 0 else self._column + self.at
        parts = [self._text[self.at :]]
        missing = max(1, len(parts[0]))
        self.at = self._counted = 0
        while missing > 0 and (chunk := next(self._chunks, None)) is not None:
            parts.append(chunk)
            missing -= len(chunk)
        self._text = "".join(parts)
        return len(parts) > 1
