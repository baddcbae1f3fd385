"""Rows of CSV, JSON and Parquet files, and pairs of two parallel files."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from itertools import count, zip_longest

from models.base import DataError
from models.common.data_files import BadRecords, check_expansion
from models.common.table import TextTable
from models.common.text_file import TextFile, parse_json
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
                yield from (RawRow(n, n, row) for row, n in zip(batch.to_pylist(), rows, strict=False))
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


def read_parallel(requests: TextFile, answers: TextFile, bad_records: BadRecords) -> Iterator[Conversation]:
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
    """The rows of an array, whose lines are their numbers, or the object of each line of JSON.

    Holds an array in memory. Raises DataError for text that is not JSON.
    """
    allowed = "an array of objects, or one object per line"
    first = file.first_line().lstrip()[0]
    if first == "{" and not has_rows(file):
        problem = f"'{name}' is one object, not an array of rows"
        raise DataError(problem, where=f"{name}:1", allowed=allowed)
    if first != "[":
        yield from json_line_rows(file, name, bad_records)
        return
    try:
        rows = parse_json("".join(file.chunks()))
    except json.JSONDecodeError as error:
        problem = f"'{name}' is not JSON: {error.msg.removesuffix(' at')} at column {error.colno}"
        raise DataError(problem, where=f"{name}:{error.lineno}", allowed=allowed) from None
    except ValueError as error:
        raise DataError(f"'{name}' is not JSON: {error}", where=name, allowed=allowed) from None
    for number, row in enumerate(rows, start=1):
        if _is_object(row, f"{name}:{number}", bad_records):
            yield RawRow(number, number, row)
