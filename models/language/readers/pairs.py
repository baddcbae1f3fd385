"""Requests and answers as rows: the columns they go by, in CSV and in two parallel files."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from models.base import DataError
from models.common.faults import Faults
from models.language.readers.files import read_text
from models.language.records import Conversation, Turn

COLUMNS = (("input", "output"), ("prompt", "response"), ("user", "assistant"))
LEGAL = " or ".join(f"{request},{answer}" for request, answer in COLUMNS)


def columns_in(names: Mapping[str, object] | list[str]) -> tuple[str, str] | None:
    """The pair of columns that `names` holds, the first of COLUMNS that is there."""
    return next((pair for pair in COLUMNS if pair[0] in names and pair[1] in names), None)


def pair(request: object, answer: object, where: str, faults: Faults) -> Conversation | None:
    """A conversation of one request and one answer; None and a fault if either is no text."""
    for name, value in (("request", request), ("answer", answer)):
        if not isinstance(value, str):
            faults.add(where, f"the {name} is {type(value).__name__}, not text")
            return None
        if not value.strip():
            faults.add(where, f"the {name} is empty")
            return None
    return Conversation((Turn("user", str(request)), Turn("assistant", str(answer))), where)


def read_csv(text: str, name: str, faults: Faults) -> list[Conversation]:
    """The pairs of a CSV file with a header; other columns are left alone.

    Raises DataError if the header has no known pair of columns. Source: RFC 4180.
    """
    # Not strict: after an error in the middle of a row the reader would go on inside it.
    rows = csv.reader(io.StringIO(text, newline=""))
    header = [column.strip().lower() for column in next(rows)]
    found = columns_in(header)
    if found is None:
        raise DataError(
            f"'{name}' has no pair of columns for request and answer: {', '.join(header)}",
            where=f"{name}, line 1",
            legal=LEGAL,
            mend="rename the columns in the first line",
        )
    request, answer = (header.index(column) for column in found)
    conversations: list[Conversation] = []
    while True:
        where = f"{name}, line {rows.line_num + 1}"
        try:
            row = next(rows, None)
        except csv.Error as error:
            faults.add(where, str(error))
            continue
        if row is None:
            return conversations
        if not row:
            continue
        if len(row) != len(header):
            faults.add(where, f"{len(row)} of {len(header)} columns")
        elif conversation := pair(row[request], row[answer], where, faults):
            conversations.append(conversation)


def read_parallel(requests: Path, answers: Path, faults: Faults) -> list[Conversation]:
    """Line N of `answers` answers line N of `requests`.

    Raises DataError if the files have different numbers of lines.
    """
    asked, answered = (read_text(p).removesuffix("\n").split("\n") for p in (requests, answers))
    if len(asked) != len(answered):
        raise DataError(
            f"'{requests}' has {len(asked)} lines and '{answers}' has {len(answered)}",
            where="data.path and data.answers",
            legal="two files with as many lines: line N answers line N",
        )
    conversations = []
    for line, (request, answer) in enumerate(zip(asked, answered, strict=True), start=1):
        if conversation := pair(request, answer, f"{requests.name}, line {line}", faults):
            conversations.append(conversation)
    return conversations
