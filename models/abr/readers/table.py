"""Tables of responses: what their columns mean, and their rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import nan
from pathlib import Path
from typing import Any

import numpy as np

from gearshift.models.abr.config import CLASS_NAMES, COLUMNS, POINTS, UNKNOWN
from gearshift.models.abr.responses import (
    UNKNOWN_CLASS,
    ResponseOrigin,
    ResponseReading,
    ResponseRow,
)
from gearshift.models.base import DataError
from gearshift.models.common.config import declared_columns
from gearshift.models.common.data_reports import IGNORE, listed
from gearshift.models.common.table import MISSING, Table, columns_option, text_of
from gearshift.models.common.text_file import TextFile

REQUIRED = ("patient_id", "intensity")
LABELS = ("hear_loss", "v_latency", "v_amplitude", "threshold")
POINT_NAMES = tuple(str(point) for point in range(1, POINTS + 1))
ORIGIN = ResponseOrigin(
    "table",
    "human",
    10.0,
    "µV, as documented for the columns 1 to 200",
)
MOST_REJECTED = 100
"""From this number of rejected sweeps on, a response is left out."""
_MANY = 20
_TARGETS = dict.fromkeys((*MISSING, UNKNOWN), UNKNOWN_CLASS)
"""The number of a class by its name and by its number as text."""
for _number, _name in enumerate(CLASS_NAMES):
    _TARGETS |= {_name: _number, str(_number): _number}


def name_of(cell: Any) -> str:
    """A heading, patient or class; a spreadsheet may write 7 as 7.0, which is the same."""
    return text_of(cell).removesuffix(".0")


def find_columns(
    names: Sequence[str],
    path: Path,
    reading: ResponseReading,
) -> dict[str, int]:
    """The index of each column of the table at `path`, by its meaning; unread ones are a note.

    Raises DataError if a needed column is missing, if two mean the same, or if there are more
    points than a response has.
    """
    declared = declared_columns(reading.settings.columns)
    absent = declared.keys() - {name.lower() for name in names}
    if absent:
        raise DataError(
            f"the table has no column '{min(absent)}' of data.columns",
            where=str(path),
            allowed=", ".join(name for name in names if name not in POINT_NAMES),
        )
    ignored = {IGNORE} if reading.has_labels else {IGNORE, *LABELS}
    columns: dict[str, int] = {}
    unread = []
    for place, name in enumerate(names):
        meaning = declared.get(name.lower(), name.lower())
        if meaning in columns:
            raise DataError(
                f"two columns mean {meaning}: {names[columns[meaning]]}, {name}",
                where=str(path),
                allowed="one column of each meaning",
                fix=columns_option({**declared, name: IGNORE}),
            )
        # More points say nothing about the sampling rate: the first 200 may be any time.
        if meaning.isdecimal() and int(meaning) > POINTS:
            raise DataError(
                f"the table has a point {meaning}, and a response has {POINTS}",
                where=str(path),
                allowed=f"columns 1 … {POINTS}: 10 ms, each point the mean of 0.05 ms",
                hint="average each response to these points, or remove the columns after 10 ms",
            )
        if meaning in ignored:
            continue
        if meaning in (*COLUMNS, *POINT_NAMES):
            columns[meaning] = place
        elif name:
            unread.append(name)

    missing = [name for name in (*REQUIRED, *POINT_NAMES) if name not in columns]
    if missing:
        raise DataError(
            f"the table has no column {listed(missing, 3)} among: {listed(unread, _MANY)}",
            where=str(path),
            allowed=f"{', '.join(REQUIRED)}, 1 … {POINTS}; and if known {', '.join(COLUMNS)}",
            hint=f"say what a column means:  {columns_option({'NAME': missing[0]})}",
        )
    if unread:
        reading.notes.append(f"{path.name}: columns that are not read: {listed(unread, _MANY)}")
    return columns


def read(
    path: Path,
    name: str,
    reading: ResponseReading,
) -> Iterator[ResponseRow]:
    """A row for each response. Reads the disk row by row; counts bad rows and those left out.

    Raises DataError if the file is not such a table, or lacks a column.
    """
    table = Table(TextFile(path, name))
    columns = find_columns([*map(name_of, table.header)], path, reading)
    for line, cells in table.rows(reading.bad_records):
        where = f"{name}:{line}"
        row = {meaning: cells[index] for meaning, index in columns.items()}
        try:
            yield from _responses(row, where, table, reading)
        except ValueError as error:
            reading.bad_records.add(where, str(error))
    reading.notes += [f"{name}: {note}" for note in table.notes]


def _responses(
    row: Mapping[str, Any],
    where: str,
    table: Table,
    reading: ResponseReading,
) -> Iterator[ResponseRow]:
    """The response of a row, given by meaning, unless it is left out. Raises ValueError."""
    known = {
        meaning: table.number(cell, meaning)
        for meaning, cell in row.items()
        if meaning not in ("patient_id", "hear_loss", "polarity")
    }
    polarity = text_of(row.get("polarity")).lower()
    if polarity and not polarity.startswith("alter"):
        reading.left_out["other_polarity"] += 1
        return
    if known.get("rejected", nan) >= MOST_REJECTED:
        reading.left_out["many_rejected"] += 1
        return
    target = _target(row.get("hear_loss"), reading)

    known["level"] = known["intensity"]
    # An empty latency, or one that is not positive, means no wave V.
    latency = known.get("v_latency")
    if latency is not None:
        known["exists"] = float(latency > 0)
        if latency > 0:
            known["latency"] = latency
            known["amplitude"] = known.get("v_amplitude", nan)
    with np.errstate(over="ignore"):  # what float32 cannot hold is reported as not finite
        microvolts = np.array([known.pop(point) for point in POINT_NAMES], np.float32)

    patient = name_of(row["patient_id"])
    reading.left_out["without_patient"] += not patient
    # Without a patient each row is its own group, under a name that no patient has.
    group = f"patient {patient}" if patient else f"no patient: {where}"
    yield ResponseRow(group, where, microvolts, known, target)


def _target(value: Any, reading: ResponseReading) -> int:
    """The number of a class, of its name, or of a label of data.classes; empty: unknown.

    Raises ValueError.
    """
    name = name_of(value).lower()
    name = declared_columns(reading.settings.classes).get(name, name)
    if name in _TARGETS:
        return _TARGETS[name]
    reading.bad_records.fix = f"say what each label means:  --set 'data.classes=[LABEL={UNKNOWN}]'"
    allowed = ", ".join(f"{n} {name}" for n, name in enumerate(CLASS_NAMES))
    raise ValueError(f"hear_loss '{value}' is not one of {allowed}, {UNKNOWN}")
