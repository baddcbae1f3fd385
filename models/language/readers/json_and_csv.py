"""Readers of JSON Lines, CSV and two parallel files."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from itertools import zip_longest
from pathlib import Path
from typing import Any

from models.base import DataError
from models.common.data_files import BadRecords
from models.language.readers.records import Conversation, Document, Record, Turn
from models.language.readers.text_file import TextFile, split_text

COLUMNS = (("input", "output"), ("prompt", "response"), ("user", "assistant"))
COLUMN_PAIRS = " or ".join(f"{request},{answer}" for request, answer in COLUMNS)


def columns_in(names: Mapping[str, object] | list[str]) -> tuple[str, str] | None:
    """First pair of COLUMNS that `names` contains; None if there is none."""
    return next((pair for pair in COLUMNS if pair[0] in names and pair[1] in names), None)


def pair(
    request: object, answer: object, where: str, bad_records: BadRecords
) -> Conversation | None:
    """Conversation of one request and one answer; None and a reported row if either is invalid."""
    for name, value in (("request", request), ("answer", answer)):
        if not isinstance(value, str):
            kind = "null" if value is None else type(value).__name__
            bad_records.add(where, f"the {name} is {kind}, not text")
            return None
        if not value.strip():
            bad_records.add(where, f"the {name} is empty")
            return None
    return Conversation((Turn("user", str(request)), Turn("assistant", str(answer))), where)


def read_csv(file: TextFile, name: str, bad_records: BadRecords) -> Iterator[Conversation]:
    """Read the pairs of a CSV file with a header; other columns are ignored.

    Raises DataError if the header has no known pair of columns. Source: RFC 4180.
    """
    # Not strict: after an error in the middle of a row the reader would resume inside it.
    rows = csv.reader(_with_line_ends(file.lines()))
    header = _header(rows, name)
    request, answer = (header.index(column) for column in columns_in(header) or ())
    while True:
        where = f"{name}:{rows.line_num + 1}"
        try:
            row = next(rows, None)
        except csv.Error as error:
            bad_records.add(where, str(error))
            continue
        if row is None:
            return
        if not row:
            continue
        if len(row) != len(header):
            bad_records.add(where, f"{len(row)} of {len(header)} columns")
        elif conversation := pair(row[request], row[answer], where, bad_records):
            yield conversation


def _with_line_ends(lines: Iterator[str]) -> Iterator[str]:
    """Lines with their line ends."""
    last = next(lines)
    for line in lines:
        yield f"{last}\n"
        last = line
    if last:
        yield last


def _header(rows: Iterator[list[str]], name: str) -> list[str]:
    """Column names, including a known pair. Raises DataError."""
    try:
        header = [column.strip().lower() for column in next(rows)]
    except csv.Error as error:
        raise _missing_columns(name, str(error)) from None
    if columns_in(header) is None:
        raise _missing_columns(name, ", ".join(header))
    return header


def _missing_columns(name: str, found: str) -> DataError:
    return DataError(
        f"'{name}' has no columns for request and answer: {found}",
        where=f"{name}:1",
        allowed=COLUMN_PAIRS,
        fix="rename the columns in the first line",
    )


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


ROLES = ("system", "user", "assistant", "tool")
ALLOWED_KEYS = "; ".join(
    ["text", *(f"{a}, {b}" for a, b in COLUMNS), "messages: [{role, content}]"]
)


def read_json_lines(file: TextFile, name: str, bad_records: BadRecords) -> Iterator[Record]:
    """Read documents and conversations, one object per line; blank lines are skipped."""
    for line, raw in enumerate(file.lines(), start=1):
        if not raw.strip():
            continue
        where = f"{name}:{line}"
        row = _object(raw, where, bad_records)
        if row is None:
            continue
        if "messages" in row:
            if turns := _turns(row["messages"], where, bad_records):
                yield Conversation(turns, where)
        elif found := columns_in(row):
            if conversation := pair(row[found[0]], row[found[1]], where, bad_records):
                yield conversation
        elif isinstance(row.get("text"), str) and row["text"].strip():
            yield from (Document(f"{name}#{line:09}", part) for part in split_text(row["text"]))
        else:
            keys = ", ".join(map(str, row)) or "none"
            bad_records.add(where, f"no usable text under the keys {keys}; allowed: {ALLOWED_KEYS}")


def _object(raw: str, where: str, bad_records: BadRecords) -> dict[str, Any] | None:
    """Parse the object of a line; None and a reported row if it is invalid."""
    try:
        row = json.loads(raw)
        if "\\u" in raw:
            json.dumps(row, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        bad_records.add(where, f"not JSON: {error.msg} at column {error.colno}")
    except UnicodeEncodeError:
        bad_records.add(where, "half of a surrogate pair (\\ud800 to \\udfff) is not a character")
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; deep nesting
        bad_records.add(where, f"not JSON: {error}")
    else:
        if isinstance(row, dict):
            return row
        bad_records.add(where, f"{type(row).__name__}, not an object; allowed keys: {ALLOWED_KEYS}")
    return None


def _turns(messages: Any, where: str, bad_records: BadRecords) -> tuple[Turn, ...] | None:
    if not isinstance(messages, list) or not messages:
        bad_records.add(where, "messages is not a list of {role, content}")
        return None
    turns = []
    for number, message in enumerate(messages, start=1):
        role = message.get("role") if isinstance(message, dict) else None
        content = message.get("content") if isinstance(message, dict) else None
        if role not in ROLES:
            near = get_close_matches(str(role).lower(), ROLES, n=1)
            hint = f"; did you mean {near[0]}" if near else f"; allowed: {', '.join(ROLES)}"
            bad_records.add(where, f"message {number}: unknown role {role!r}{hint}")
            return None
        if not isinstance(content, str) or (role == "assistant" and not content.strip()):
            bad_records.add(where, f"message {number}: content is empty or not text")
            return None
        turns.append(Turn(role, content))
    return tuple(turns)
