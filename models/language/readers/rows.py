"""Rows of CSV, JSON and Parquet files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any, NamedTuple

from gearshift.models.base import DataError
from gearshift.models.common.data_files import check_expansion, check_reader
from gearshift.models.common.data_reports import BadRecords, library_errors
from gearshift.models.common.table import Table
from gearshift.models.common.text_file import TextFile, parse_json

_BATCH = 16
"""Rows that are decoded at a time: each may be as long as the dictionary of its column."""


class Row(NamedTuple):
    """A row of a table or an object of JSON, as it is in the file."""

    line: int
    """Where it begins; in a Parquet file and an array of JSON its number."""
    fields: Mapping[str, Any]
    header: int | None = None
    """The line of the names of the fields in a table; None: each row names its own."""


def parquet_rows(file: TextFile, name: str, bad_records: BadRecords) -> Iterator[Row]:
    """The rows of a Parquet table. Raises DataError if it is none, or pyarrow is not installed."""
    check_reader("pyarrow", file.path)
    with library_errors(
        f"'{name}' is not Parquet",
        f"data.path, {file.path}",
        allowed="a Parquet file that pyarrow reads",
    ):
        from pyarrow.parquet import ParquetFile

        with ParquetFile(file.path) as table:
            groups = (table.metadata.row_group(n) for n in range(table.num_row_groups))
            check_expansion(file.path, sum(group.total_byte_size for group in groups))
            unpacked = 0
            numbers = count(1)
            for batch in table.iter_batches(_BATCH):
                unpacked += batch.nbytes  # values of a dictionary count as often as they occur
                check_expansion(file.path, unpacked)
                yield from map(Row, numbers, batch.to_pylist())


def table_rows(file: TextFile, name: str, bad_records: BadRecords) -> Iterator[Row]:
    """The rows of a table of text.

    A first column without a name is left out: pandas and R write the names of rows into it. Other
    ones are named by their place. Raises DataError.
    """
    table = Table(file, name)
    header = [column or f"column {n}" for n, column in enumerate(table.header, start=1)]
    first = 0 if table.header[0] else 1
    column, uses = Counter(column.lower() for column in header).most_common(1)[0]
    if uses > 1:
        raise DataError(
            f"'{name}' has {uses} columns with the name '{column}'",
            where=f"{name}:{table.header_line}",
            allowed="columns with different names",
            hint=f"rename {uses - 1} of them in line {table.header_line}",
        )
    for line, cells in table.rows(bad_records):
        yield Row(
            line,
            dict(zip(header[first:], cells[first:], strict=True)),
            table.header_line,
        )


def json_rows(file: TextFile, name: str, bad_records: BadRecords) -> Iterator[Row]:
    """The object of each line of JSON; blank lines are skipped. Raises DataError."""
    file.first_line()  # raises DataError if the file is empty
    for line, raw in enumerate(file.lines(), start=1):
        if raw.strip():
            try:
                yield Row(line, _object(parse_json(raw)))
            except ValueError as error:
                bad_records.add(f"{name}:{line}", f"not JSON: {error}")


def array_rows(file: TextFile, name: str, bad_records: BadRecords) -> Iterator[Row]:
    """The rows of an array, which is held in memory, or the object of each line of JSON.

    Raises DataError for text that is not JSON.
    """
    if not file.first_line().lstrip().startswith("["):
        yield from json_rows(file, name, bad_records)
        return
    try:
        rows = parse_json("".join(file.chunks()))
    except ValueError as error:
        raise DataError(
            f"'{name}' is not JSON: {error}",
            where=f"{name}:{getattr(error, 'lineno', 1)}",
            allowed="an array of objects, or one object per line",
        ) from None
    for number, row in enumerate(rows, start=1):
        try:
            yield Row(number, _object(row))
        except ValueError as error:
            bad_records.add(f"{name}:{number}", str(error))


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{type(value).__name__}, not an object")
    return value
