"""Rows of CSV, JSON, Parquet and Arrow files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import count, islice, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from gearshift.models.base import DataError
from gearshift.models.common.data_files import check_expansion, check_reader
from gearshift.models.common.data_reports import BadRecords, library_errors
from gearshift.models.common.table import Table
from gearshift.models.common.text_file import GZIP, TextFile, parse_json

_KINDS = {
    ".csv": "CSV",
    ".tsv": "CSV",
    ".xlsx": "CSV",
    ".jsonl": "JSONL",
    ".ndjson": "JSONL",
    ".json": "JSON",
    ".parquet": "Parquet",
    ".arrow": "Arrow",
    ".feather": "Arrow",
    ".ipc": "Arrow",
}
SUFFIXES = _KINDS.keys()
_ARRAYS = ("data", "rows", "examples", "instances", "records")
"""Names of the array of rows in an object."""
_ARROW_FILE = b"ARROW1"
"""Begins a file; a stream has no mark. Source: Arrow columnar format, IPC file format."""
_BATCH = 16
"""Rows that are decoded at a time: each may be as long as the dictionary of its column."""


class Row(NamedTuple):
    """A row of a table or a value of JSON."""

    line: int
    """Where it begins; in a Parquet or Arrow file and an array of JSON its number."""
    fields: Any
    """A mapping, or another value of JSON, of which `rows_of` makes a bad record."""
    header: int | None = None
    """The line of the names of the fields in a table; None: each row names its own."""


def suffix_of(file: Path) -> str:
    """The suffix in lower case, without that of gzip."""
    return Path(file.name.lower().removesuffix(GZIP)).suffix


def file_kind(file: Path) -> str:
    """Kind of a file by its suffix: CSV, JSONL, JSON, Parquet, Arrow or text."""
    return _KINDS.get(suffix_of(file), "text")


def rows_of(file: TextFile, bad_records: BadRecords) -> Iterator[Row]:
    """The rows of a file that is no text without their nulls, as training and use read them.

    Raises DataError.
    """
    for row in _ROWS[file_kind(file.path)](file, bad_records):
        if isinstance(row.fields, dict):
            fields = {key: value for key, value in row.fields.items() if value is not None}
            yield row._replace(fields=fields)
        else:
            problem = f"{type(row.fields).__name__}, not an object"
            bad_records.add(f"{file.name}:{row.line}", problem)


def arrow_rows(file: TextFile, bad_records: BadRecords) -> Iterator[Row]:
    """The rows of a table that pyarrow reads. Raises DataError, also if it is not installed."""
    check_reader("pyarrow", file.path)
    kind = file_kind(file.path)
    with library_errors(
        f"'{file.name}' is not {kind}",
        f"data.path, {file.path}",
        allowed="a Parquet file, or an Arrow stream or file as datasets and polars write them",
    ):
        unpacked = 0
        numbers = count(1)
        for batch in _batches(file.path, kind):
            unpacked += batch.nbytes  # values of a dictionary count as often as they occur
            check_expansion(file.path, unpacked)
            for first in range(0, len(batch), _BATCH):
                yield from map(Row, numbers, batch.slice(first, _BATCH).to_pylist())


def _batches(path: Path, kind: str) -> Iterator[Any]:
    if kind == "Parquet":
        from pyarrow.parquet import ParquetFile

        with ParquetFile(path) as table:
            yield from table.iter_batches(_BATCH)
    else:
        from pyarrow import ipc

        with path.open("rb") as content:
            if content.read(len(_ARROW_FILE)) == _ARROW_FILE:
                table = ipc.open_file(content)
                yield from map(table.get_batch, range(table.num_record_batches))
                return
            content.seek(0)
            yield from ipc.open_stream(content)


def table_rows(file: TextFile, bad_records: BadRecords) -> Iterator[Row]:
    """The rows of a table of text, or of the first sheet of a workbook.

    Columns without a name are left out: pandas and R write the names of rows into one. Raises
    DataError.
    """
    table = Table(file)
    header = table.header
    named = [column.lower() for column in header if column]
    [(column, uses)] = Counter(named or [""]).most_common(1)
    if uses > 1:
        raise DataError(
            f"'{file.name}' has {uses} columns with the name '{column}'",
            where=f"{file.name}:{table.header_line}",
            allowed="columns with different names",
            hint=f"rename {uses - 1} of them in line {table.header_line}",
        )
    for line, cells in table.rows(bad_records):
        fields = dict(zip(header, cells, strict=True))
        fields.pop("", None)
        yield Row(line, fields, table.header_line)


def json_rows(file: TextFile, bad_records: BadRecords) -> Iterator[Row]:
    """The value of each line of JSON, or the rows of an array, which is held in memory.

    Whatever the suffix says. The array may be in an object, as in {"version": 1, "data": [...]}; or
    the object has a list for each column, {"prompt": [...], "completion": [...]}. Blank lines are
    skipped. Raises DataError for text that is not JSON.
    """
    lines = map(str.strip, file.lines())
    ends = "".join(line[0] + line[-1] for line in islice(filter(None, lines), 2))
    is_jsonl = file_kind(file.path) == "JSONL" and not ends.startswith("[")
    if not is_jsonl and not ends.startswith("{}{"):
        yield from _array_rows(file)
        return
    for line, raw in enumerate(file.lines(), start=1):
        if raw.strip():
            try:
                yield Row(line, parse_json(raw))
            except ValueError as error:
                bad_records.add(f"{file.name}:{line}", f"not JSON: {error}")


def _array_rows(file: TextFile) -> Iterator[Row]:
    try:
        rows = parse_json("".join(file.chunks()))
    except ValueError as error:
        raise DataError(
            f"'{file.name}' is not JSON: {error}",
            where=f"{file.name}:{getattr(error, 'lineno', 1)}",
            allowed="an array of objects, or one object per line",
        ) from None
    if isinstance(rows, dict):
        rows = next((rows[key] for key in _ARRAYS if isinstance(rows.get(key), list)), rows)
    if isinstance(rows, dict) and rows and all(map(_is_column, rows.values())):
        names = tuple(rows)
        rows = [dict(zip(names, cells, strict=True)) for cells in zip_longest(*rows.values())]
    if not isinstance(rows, list):
        rows = [rows]
    return map(Row, count(1), rows)


def _is_column(value: Any) -> bool:
    """Whether it holds a cell for each row; objects are the messages of one conversation."""
    return isinstance(value, list) and not any(isinstance(cell, dict) for cell in value)


_ROWS = {
    "CSV": table_rows,
    "JSONL": json_rows,
    "JSON": json_rows,
    "Parquet": arrow_rows,
    "Arrow": arrow_rows,
}
