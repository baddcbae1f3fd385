"""Tables beside recordings: sentences with their times, and maps of names."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any

from models.base import DataError
from models.common.data_files import BadRecords, existing_path
from models.common.table import is_table, open_table
from models.common.text_file import TextFile

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


def sentences(
    path: Path, bad_records: BadRecords, has_text: bool = True
) -> tuple[list[Reading], list[str]]:
    """The rows of a table of sentences, and notes about how it was read.

    Unless `has_text`, the column `text` is not read. A row without numbers is a bad record. Reads
    the disk; raises DataError.
    """
    table = open_table(path)
    header = [str(name).strip() for name in table.header]
    names = COLUMNS if has_text else COLUMNS[:2]
    if missing := [name for name in names if name not in header]:
        near = missing[0].removesuffix("_s")
        raise DataError(
            f"'{path.name}' has no column {missing[0]}",
            where=f"{path}:{table.header_line}",
            allowed=", ".join(names),
            did_you_mean=f"{missing[0]} for {near}" if near in header else "",
            fix=f"name the columns  {'  '.join(names)}",
        )
    if twice := [name for name in names if header.count(name) > 1]:
        raise DataError(
            f"'{path.name}' has {header.count(twice[0])} columns {twice[0]}",
            where=f"{path}:{table.header_line}",
            allowed="one column of each name",
            fix="rename those that are not meant",
        )
    columns = [header.index(name) for name in names]
    found = []
    for number, row in table.rows(bad_records):
        where = f"{path.name}:{number}"
        onset_cell, duration_cell, *text = (row[i] for i in columns)
        try:
            onset = table.number(onset_cell, COLUMNS[0])
            duration = table.number(duration_cell, COLUMNS[1])
            if isnan(onset) or isnan(duration):
                raise ValueError(f"{COLUMNS[0] if isnan(onset) else COLUMNS[1]} has no number")
        except ValueError as error:
            bad_records.add(where, str(error), "write numbers of seconds")
            continue
        found.append(Reading(onset, duration, "".join(text).strip(), where))
    return found, [f"{path.name}: {note}" for note in table.notes]


def pairs(path: Path, key: str, what: str) -> dict[str, str]:
    """A JSON object of texts, or the two columns of a CSV or TSV below its heading.

    `key` and `what` describe it in errors. Reads the disk; raises DataError, also where a name has
    two texts.
    """

    def joined(pairs: Iterable[Sequence[Any]]) -> dict[str, Any]:
        texts: dict[str, Any] = {}
        for name, text in pairs:
            if texts.setdefault(name, text) != text:
                raise _unusable(path, key, what, f"'{name}' is '{texts[name]}' and '{text}'")
        return texts

    path = existing_path(str(path), _maps(what), key)
    if is_table(path):
        bad, table = BadRecords("rows"), open_table(path)
        rows = [[str(cell).strip() for cell in row] for _, row in table.rows(bad)]
        bad.finish("stop", len(rows))
        if len(table.header) != 2:
            columns = ", ".join(map(str, table.header))
            raise _unusable(path, key, what, f"it has the columns {columns}")
        texts = joined(rows)
    else:
        try:
            texts = json.loads("".join(TextFile(path).chunks()), object_pairs_hook=joined)
        except (ValueError, RecursionError) as error:
            raise _unusable(path, key, what, str(error)) from None
    is_text = isinstance(texts, dict) and all(isinstance(v, str) for v in texts.values())
    if not is_text or not texts:
        raise _unusable(path, key, what, "not a table of texts")
    return texts


def _unusable(path: Path, key: str, what: str, why: str) -> DataError:
    return DataError(
        f"{key} '{path}' cannot be used: {why}",
        where=key,
        allowed=_maps(what),
    )


def _maps(what: str) -> str:
    return f'a JSON object {{"name": "..."}} or a CSV of two columns, from {what}'
