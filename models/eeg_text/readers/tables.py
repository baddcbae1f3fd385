"""Tables beside recordings: sentences with their times, and pairs of texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any

from models.base import DataError
from models.common.data_files import IGNORE, BadRecords, existing_path
from models.common.table import columns_option, is_table, open_table, renamed
from models.common.text_file import TextFile, parse_json
from models.eeg_text.config import COLUMNS, EVENT, TEXT


@dataclass(frozen=True)
class Reading:
    """A sentence that was read, with its time."""

    onset_s: float
    duration_s: float
    text: str
    where: str


def beside(recording: Path) -> Path | None:
    """The table of sentences beside a recording: its name with .tsv or .csv. Reads the disk."""
    paths = (recording.with_suffix(suffix) for suffix in (".tsv", ".csv"))
    return next((path for path in paths if path.is_file()), None)


def sentences(
    path: Path, bad_records: BadRecords, declared: Mapping[str, str], has_text: bool, notes: list[str]
) -> list[Reading]:
    """The rows of a table of sentences; adds to `notes` how it was read.

    `declared`: the meaning of a column by its name in lower case. Unless `has_text`, the column
    `text` is not read. A row without numbers is a bad record. Reads the disk; raises DataError.
    """
    table = open_table(path)
    header = renamed(table.header, declared)
    names = COLUMNS if has_text else COLUMNS[:2]
    for name in names:
        if (count := header.count(name)) != 1:
            raise DataError(
                f"'{path.name}' has {count or 'no'} column{'s' * (count > 1)} {name} among: "
                f"{', '.join(map(str, table.header))}",
                where=f"{path}:{table.header_line}",
                allowed=f"one column each of {', '.join(names)}",
                fix="rename those that are not meant" if count else columns_option({"NAME": name}),
            )
    columns, readings = [header.index(name) for name in names], []
    for number, row in table.rows(bad_records):
        where, cells = f"{path.name}:{number}", [row[column] for column in columns]
        try:
            times = [table.number(cell, name) for cell, name in zip(cells[:2], COLUMNS, strict=False)]
            if any(map(isnan, times)):
                raise ValueError(f"{COLUMNS[0 if isnan(times[0]) else 1]} has no number")
        except ValueError as error:
            bad_records.add(where, str(error), "write numbers of seconds")
            continue
        readings.append(Reading(times[0], times[1], "".join(cells[2:]).strip(), where))
    notes += [f"{path.name}: {note}" for note in table.notes]
    return readings


def pairs(path: Path, key: str, declared: Mapping[str, str], bad_records: BadRecords) -> dict[str, str]:
    """A JSON object of texts, or two columns of a table.

    The columns are event and text, by their names or as `declared`, or the only ones. `key` names the
    setting. Reads the disk; raises DataError, also where a name has two texts.
    """
    allowed = 'a JSON object {"name": "..."} or a CSV of two columns, each name once'
    path = existing_path(str(path), allowed, key)

    def unusable(reason: str, fix: str = "") -> DataError:
        return DataError(f"{key} '{path}' cannot be used: {reason}", where=key, allowed=allowed, fix=fix)

    rows: list[Any]
    if is_table(path):
        table = open_table(path)
        header = renamed(table.header, declared)
        chosen = [number for number, name in enumerate(header) if name]
        if {EVENT, TEXT} <= {*header}:
            chosen = [header.index(EVENT), header.index(TEXT)]
        if len(chosen) != 2:
            names = list(map(str, table.header))
            meanings = dict(zip(names, (EVENT, TEXT, *[IGNORE] * len(names)), strict=False))
            fix = columns_option(meanings) if key == "data.texts" and names[2:] else ""
            raise unusable(f"it has the columns {', '.join(names)}", fix)
        cells = ([row[number] for number in chosen] for _, row in table.rows(bad_records))
        rows = [["" if cell is None else str(cell).strip() for cell in pair] for pair in cells]
    else:
        try:
            rows = parse_json("".join(TextFile(path).chunks()), list)
        except ValueError as error:
            raise unusable(str(error)) from None
    texts: dict[str, str] = {}
    for pair in rows if isinstance(rows, list) else ():
        if not (isinstance(pair, list | tuple) and list(map(type, pair)) == [str, str]):
            raise unusable("not a table of texts")
        if texts.setdefault(pair[0], pair[1]) != pair[1]:
            raise unusable(f"'{pair[0]}' is '{texts[pair[0]]}' and '{pair[1]}'")
    if not texts:
        raise unusable("not a table of texts")
    return texts
