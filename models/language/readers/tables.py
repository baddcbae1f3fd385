"""Rows of CSV, JSON and Parquet files, and pairs of two parallel files."""

from __future__ import annotations

import json
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
    both = (map(str.rstrip, file.lines_with_ends()) for file in (requests, answers))
    for line, (request, answer) in enumerate(zip_longest(*both), start=1):
        if request is None or answer is None:
            raise DataError(
                f"'{requests.path}' and '{answers.path}' have different numbers of lines",
                where=f"data.path and data.answers, line {line}",
                allowed="two files with the same number of lines",
            )
        where = f"{requests.path.name}:{line}"
        if not request or not answer:
            bad_records.add(where, "the request or the answer is empty")
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
        except ValueError as error:
            bad_records.add(where, f"not JSON: {error}")
            continue
        if isinstance(row, dict):
            yield RawRow(line, line, row)
        else:
            bad_records.add(where, f"{type(row).__name__}, not an object")


def json_rows(file: TextFile, name: str, bad_records: BadRecords) -> Iterator[RawRow]:
    """The rows of an array, whose lines are their numbers, or the object of each line of JSON.

    Holds an array in memory. Raises DataError for text that is not JSON.
    """
    if not file.first_line().lstrip().startswith("["):
        yield from json_line_rows(file, name, bad_records)
        return
    try:
        rows = parse_json("".join(file.chunks()))
    except ValueError as error:
        where = f"{name}:{error.lineno}" if isinstance(error, json.JSONDecodeError) else name
        raise DataError(
            f"'{name}' is not JSON: {error}",
            where=where,
            allowed="an array of objects, or one object per line",
        ) from None
    for number, row in enumerate(rows, start=1):
        if isinstance(row, dict):
            yield RawRow(number, number, row)
        else:
            bad_records.add(f"{name}:{number}", f"{type(row).__name__}, not an object")
