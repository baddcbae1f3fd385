"""Reader of Parquet tables, by the pyarrow library."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from models.base import DataError
from models.common.data_files import BadRecords
from models.language.readers.columns import RowReader
from models.language.readers.records import Record
from models.language.readers.text_file import TextFile

_BATCH = 1024
"""Rows that are read at a time."""


def read_parquet(
    file: TextFile, name: str, declared: Mapping[str, str], bad_records: BadRecords
) -> Iterator[Record]:
    """Read documents and conversations, one per row; lines of messages are numbers of rows.

    `declared`: see columns_in. Raises DataError for a row whose columns are not all read, for a
    file that is not Parquet, and if pyarrow is not installed.
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
    reader = RowReader(name, declared, bad_records)
    try:
        with ParquetFile(file.path) as table:
            rows = (row for batch in table.iter_batches(_BATCH) for row in batch.to_pylist())
            for number, row in enumerate(rows, start=1):
                yield from reader.records(row, number)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(
            f"'{name}' is not Parquet: {str(error).splitlines()[0]}",
            where=f"data.path, {file.path}",
            allowed="a Parquet file that pyarrow reads",
        ) from None
