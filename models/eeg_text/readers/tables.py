"""Tables beside recordings: sentences with their times, and maps of names."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from models.base import DataError

COLUMNS = ("onset_s", "duration_s", "text")
SUFFIXES = (".tsv", ".csv")


@dataclass(frozen=True)
class Reading:
    """A sentence that was read, with its time."""

    onset_s: float
    duration_s: float
    text: str
    where: str


def beside(recording: Path) -> Path | None:
    """The table of sentences beside a recording: its name with .tsv or .csv. Reads the disk."""
    paths = (recording.with_suffix(suffix) for suffix in SUFFIXES)
    return next((path for path in paths if path.is_file()), None)


def sentences(path: Path, has_text: bool = True) -> list[Reading]:
    """The rows of a table of sentences. Reads the disk; raises DataError.

    Unless `has_text`, the column `text` is not read.
    """
    rows = _rows(path)
    names = COLUMNS if has_text else COLUMNS[:2]
    missing = [name for name in names if not rows or name not in rows[0]]
    if missing:
        raise DataError(
            f"'{path.name}' has no column {missing[0]}",
            where=f"{path}:1",
            allowed=", ".join(names),
        )
    columns = [rows[0].index(name) for name in names]
    found = []
    for number, row in enumerate(rows[1:], start=2):
        where = f"{path.name}:{number}"
        try:
            onset, duration, *text = (row[i] for i in columns)
            found.append(Reading(float(onset), float(duration), "".join(text), where))
        except (IndexError, ValueError):
            raise DataError(
                f"'{path.name}' has a row without two numbers and a text",
                where=f"{path}:{number}",
                allowed="onset in seconds, duration in seconds, text",
            ) from None
    return found


def pairs(path: Path, key: str, what: str) -> dict[str, str]:
    """A JSON object of texts, or the two columns of a CSV or TSV below its heading.

    `key` and `what` describe it in errors. Reads the disk; raises DataError.
    """
    if path.suffix.lower() in SUFFIXES:
        rows = _rows(path, key)
        found = {row[0]: row[1] for row in rows[1:] if len(row) > 1}
    else:
        try:
            found = json.loads(_text(path, key))
        except ValueError as error:
            raise _unusable(path, key, what, str(error)) from None
    is_text = isinstance(found, dict) and all(isinstance(v, str) for v in found.values())
    if not is_text or not found:
        raise _unusable(path, key, what, "not a table of texts")
    return found


def _rows(path: Path, key: str = "") -> list[Sequence[str]]:
    lines = _text(path, key).splitlines()
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    return [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=delimiter) if row]


def _text(path: Path, key: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"'{path}' cannot be read: {error}", where=key or str(path), allowed="text in UTF-8"
        ) from None


def _unusable(path: Path, key: str, what: str, why: str) -> DataError:
    return DataError(
        f"{key} '{path}' cannot be used: {why}",
        where=key,
        allowed=f'a JSON object {{"name": "..."}} or a CSV of two columns, from {what}',
    )
