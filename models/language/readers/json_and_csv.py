"""Rows of JSON Lines and tables of text, and pairs of two parallel files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

from models.base import DataError
from models.common.data_files import BadRecords
from models.common.table import TextTable
from models.common.text_file import TextFile
from models.language.readers.columns import RawRow, pair
from models.language.readers.records import Conversation


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
    request_lines, answer_lines = (_lines(file) for file in (requests, answers))
    for line, (request, answer) in enumerate(zip_longest(request_lines, answer_lines), start=1):
        if request is None or answer is None:
            rest = 1 + sum(1 for _ in (request_lines if answer is None else answer_lines))
            counts = [line - 1 + rest * (text is not None) for text in (request, answer)]
            raise DataError(
                f"'{requests.path}' has {counts[0]} lines, '{answers.path}' has {counts[1]}",
                where="data.path and data.answers",
                allowed="two files with the same number of lines",
            )
        if conversation := pair(request, answer, f"{requests.path.name}:{line}", bad_records):
            yield conversation


def _lines(file: TextFile) -> Iterator[str]:
    """Lines of a file, without an empty last one. Raises DataError if the file is empty."""
    file.first_line()
    return (line.removesuffix("\n") for line in file.lines_with_ends())


def json_line_rows(file: TextFile, name: str, bad_records: BadRecords) -> Iterator[RawRow]:
    """The object of each line of JSON; blank lines are skipped. Raises DataError."""
    file.first_line()  # raises DataError if the file is empty
    for line, raw in enumerate(file.lines(), start=1):
        if raw.strip() and (row := _object(raw, f"{name}:{line}", bad_records)) is not None:
            yield RawRow(line, line, row)


def _object(raw: str, where: str, bad_records: BadRecords) -> dict[str, Any] | None:
    """Parse the object of a line; None and a reported row if it is invalid."""
    try:
        row = json.loads(raw)
    except json.JSONDecodeError as error:
        bad_records.add(where, f"not JSON: {error.msg} at column {error.colno}")
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; deep nesting
        bad_records.add(where, f"not JSON: {error}")
    else:
        return checked_object(row, raw, where, bad_records)
    return None


def checked_object(
    row: object, raw: str, where: str, bad_records: BadRecords
) -> dict[str, Any] | None:
    """`row`, parsed from `raw`; None and a reported row if it is no object, or not text."""
    try:
        if "\\u" in raw:
            json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        bad_records.add(where, "half of a surrogate pair (\\ud800 to \\udfff) is not a character")
        return None
    if isinstance(row, dict):
        return row
    bad_records.add(where, f"{type(row).__name__}, not an object")
    return None
