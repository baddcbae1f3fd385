"""Readers of JSON Lines, CSV and two parallel files."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

from models.base import DataError
from models.common.data_files import BadRecords
from models.language.readers.columns import RowReader, pair
from models.language.readers.records import Conversation, Record
from models.language.readers.text_file import TextFile


def read_csv(
    file: TextFile, name: str, declared: Mapping[str, str], bad_records: BadRecords
) -> Iterator[Record]:
    """Read the rows of a CSV file with a header.

    `declared`: see columns_in. Raises DataError for a header whose columns are not all read.
    Source: RFC 4180.
    """
    file.first_line()  # raises DataError if the file is empty
    # Not strict: after an error in the middle of a row the reader would resume inside it.
    rows = csv.reader(_with_line_ends(file.lines()))
    reader = RowReader(name, declared, bad_records)
    try:
        header = [column.strip() for column in next(rows)]
    except csv.Error as error:
        raise DataError(f"'{name}' has no header: {error}", where=f"{name}:1") from None
    reader.columns(header, 1)
    while True:
        line = rows.line_num + 1
        try:
            row = next(rows, None)
        except csv.Error as error:
            bad_records.add(f"{name}:{line}", str(error))
            continue
        if row is None:
            return
        if not row:
            continue
        if len(row) != len(header):
            bad_records.add(f"{name}:{line}", f"{len(row)} of {len(header)} columns")
        else:
            yield from reader.records(dict(zip(header, row, strict=True)), line)


def _with_line_ends(lines: Iterator[str]) -> Iterator[str]:
    """Lines with their line ends."""
    last = next(lines)
    for line in lines:
        yield f"{last}\n"
        last = line
    if last:
        yield last


def read_parallel(requests: Path, answers: Path, bad_records: BadRecords) -> Iterator[Conversation]:
    """Read two files; line N of `answers` answers line N of `requests`.

    Raises DataError at the end if the files have different numbers of lines.
    """
    request_lines, answer_lines = (_lines(TextFile(path)) for path in (requests, answers))
    for line, (request, answer) in enumerate(zip_longest(request_lines, answer_lines), start=1):
        if request is None or answer is None:
            rest = 1 + sum(1 for _ in (request_lines if answer is None else answer_lines))
            counts = [line - 1 + rest * (text is not None) for text in (request, answer)]
            raise DataError(
                f"'{requests}' has {counts[0]} lines, '{answers}' has {counts[1]}",
                where="data.path and data.answers",
                allowed="two files with the same number of lines",
            )
        if conversation := pair(request, answer, f"{requests.name}:{line}", bad_records):
            yield conversation


def _lines(file: TextFile) -> Iterator[str]:
    """Lines of a file, without an empty last one. Raises DataError if the file is empty."""
    file.first_line()
    return (line.removesuffix("\n") for line in _with_line_ends(file.lines()))


def read_json_lines(
    file: TextFile, name: str, declared: Mapping[str, str], bad_records: BadRecords
) -> Iterator[Record]:
    """Read documents and conversations, one object per line; blank lines are skipped.

    `declared`: see columns_in. Raises DataError for a row whose columns are not all read.
    """
    file.first_line()  # raises DataError if the file is empty
    reader = RowReader(name, declared, bad_records)
    for line, raw in enumerate(file.lines(), start=1):
        if raw.strip() and (row := _object(raw, f"{name}:{line}", bad_records)) is not None:
            yield from reader.records(row, line)


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
