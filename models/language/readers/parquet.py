"""Rows of Parquet tables, by the pyarrow library."""

from __future__ import annotations

from collections.abc import Iterator

from models.base import DataError
from models.common.data_files import BadRecords
from models.common.text_file import TextFile
from models.language.readers.columns import RawRow

_BATCH = 1024
"""Rows that are read at a time."""


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
            rows = (row for batch in table.iter_batches(_BATCH) for row in batch.to_pylist())
            yield from (RawRow(n, n, row) for n, row in enumerate(rows, start=1))
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(
            f"'{name}' is not Parquet: {str(error).splitlines()[0]}",
            where=f"data.path, {file.path}",
            allowed="a Parquet file that pyarrow reads",
        ) from None
