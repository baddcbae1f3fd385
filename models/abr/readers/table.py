"""Tables of responses: what their columns mean, and their rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from math import isnan, nan
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
from gearshift.models.common.data_files import IGNORE, listed
from gearshift.models.common.table import Table, columns_option
from gearshift.models.common.text_file import TextFile

REQUIRED = ("patient_id", "intensity")
LABELS = ("hear_loss", "v_latency", "v_amplitude", "threshold")
POINT_NAMES = tuple(str(point) for point in range(1, POINTS + 1))
ORIGIN = ResponseOrigin("table", "human", 10.0, "µV, as documented for the columns 1 to 200")
MOST_REJECTED = 100
"""From this number of rejected sweeps on, a response is left out."""
_MANY = 20


def name_of(heading: Any) -> str:
    """A heading or a patient as text; a spreadsheet may write 7 as 7.0, which is the same."""
    return str("" if heading is None else heading).strip().removesuffix(".0")


def find_columns(
    names: Sequence[str], declared: Mapping[str, str], path: Path, has_labels: bool = True
) -> dict[str, int]:
    """The index of each column of the table at `path`, by its meaning.

    `declared`: the meaning of a column by its name in lower case. Unless `has_labels`, columns of
    labels are not returned. Raises DataError if a needed column is missing, if two mean the same, or
    if there are more points than a response has.
    """
    meanings = [declared.get(name.lower(), name.lower()) for name in names]
    read = [
        meaning
        for meaning in COLUMNS
        if meaning != IGNORE and (has_labels or meaning not in LABELS)
    ]
    columns: dict[str, int] = {}
    for meaning in (*read, *POINT_NAMES):
        places = [i for i, other in enumerate(meanings) if other == meaning]
        places = [i for i in places if names[i].lower() in declared] or places
        if len(places) > 1:
            raise DataError(
                f"{len(places)} columns mean {meaning}: {', '.join(names[i] for i in places)}",
                where=str(path),
                allowed="one column of each meaning",
                fix=columns_option({names[i]: IGNORE for i in places[1:]}),
            )
        if places:
            columns[meaning] = places[0]
    if missing := [name for name in (*REQUIRED, *POINT_NAMES) if name not in columns]:
        has = [name for name in names if name and name not in POINT_NAMES]
        raise DataError(
            f"the table has no column {listed(missing, 3)} among: {listed(has, _MANY) or 'none'}",
            where=str(path),
            allowed=f"{', '.join(REQUIRED)}, 1 … {POINTS}; and if known {', '.join(read)}",
            fix=f"say what a column means:  {columns_option({'NAME': missing[0]})}",
        )
    # Their number says nothing about the sampling rate, so the first 200 may be any time.
    if more := [name for name in meanings if name.isdecimal() and int(name) > POINTS]:
        raise DataError(
            f"the table has points up to {max(map(int, more))}, and a response has {POINTS}",
            where=str(path),
            allowed=f"columns 1 … {POINTS}: {ORIGIN.window_ms:g} ms, each point the mean of 0.05 ms",
            fix="average each response to these points, or remove the columns after 10 ms",
        )
    return columns


def read(path: Path, name: str, reading: ResponseReading) -> Iterator[ResponseRow]:
    """A row for each response. Reads the disk row by row; counts bad rows and those left out.

    Raises DataError if the file is not such a table, or lacks a column.
    """
    table = Table(TextFile(path), name)
    settings = reading.settings
    declared = declared_columns(settings.columns)
    classes = declared_columns(settings.classes)
    names = list(map(name_of, table.header))
    columns = find_columns(names, declared, path, reading.has_labels)
    reading.columns |= {name.lower(): name for name in names}
    used = {*columns.values()} | {i for i, head in enumerate(names) if head.lower() in LABELS}
    others = [head for i, head in enumerate(names) if head and i not in used]
    if unread := [head for head in others if declared.get(head.lower()) != IGNORE]:
        reading.notes.append(f"{name}: columns that are not read: {listed(unread, _MANY)}")
    for line, cells in table.rows(reading.bad_records):
        where = f"{name}:{line}"
        row = {meaning: cells[index] for meaning, index in columns.items()}
        try:
            numbers = {key: table.number(row[key], key) for key in row if key not in _TEXTS}
            polarity = str(row.get("polarity") or "alternating").strip().lower()
            if not polarity.startswith("alter"):
                reading.left_out["other_polarity"] += 1
                continue
            if numbers.get("rejected", nan) >= MOST_REJECTED:
                reading.left_out["many_rejected"] += 1
                continue
            target = _target(
                row.get("hear_loss"), classes, partial(table.number, name="hear_loss"), reading
            )
        except ValueError as error:
            reading.bad_records.add(where, str(error))
            continue
        patient = name_of(row["patient_id"])
        reading.left_out["without_patient"] += not patient
        with np.errstate(over="ignore"):  # what float32 cannot hold is reported as not finite
            microvolts = np.array([numbers[point] for point in POINT_NAMES], np.float32)
        known: dict[str, float] = {
            key: numbers[key] for key in ("age", "rate", "fmp", "threshold") if key in numbers
        }
        if "v_latency" in numbers:  # an empty latency, or one that is not positive, means no wave V
            latency = numbers["v_latency"]
            amplitude = numbers.get("v_amplitude", nan)
            wave = {"exists": 1.0, "latency": latency, "amplitude": amplitude}
            known |= wave if latency > 0 else {"exists": 0.0}
        # Without a patient each row is its own group, under a name that no patient has.
        group = f"patient {patient}" if patient else f"no patient: {where}"
        yield ResponseRow(group, where, microvolts, known | {"level": numbers["intensity"]}, target)
    reading.notes += [f"{name}: {note}" for note in table.notes]


_TEXTS = ("patient_id", "hear_loss", "polarity")


def check_declared(reading: ResponseReading) -> None:
    """Raise DataError if a column of data.columns is in no table that was read."""
    if missing := declared_columns(reading.settings.columns).keys() - reading.columns.keys():
        raise DataError(
            f"no table has the column '{min(missing)}' of data.columns",
            where="data.columns",
            allowed=", ".join(n for n in reading.columns.values() if n not in POINT_NAMES),
        )


def _target(
    value: Any, classes: Mapping[str, str], number_of: Any, reading: ResponseReading
) -> int:
    """A class from 0 to 4, its name or a label of data.classes; empty: unknown. Raises ValueError."""
    name = name_of(value).lower()
    name = classes.get(name, name)
    if name in CLASS_NAMES:
        return CLASS_NAMES.index(name)
    if name == UNKNOWN:
        return UNKNOWN_CLASS
    with suppress(ValueError):
        if isnan(number := number_of(name)):
            return UNKNOWN_CLASS
        if number in range(len(CLASS_NAMES)):
            return int(number)
    reading.bad_records.fix = f"say what each label means:  --set 'data.classes=[LABEL={UNKNOWN}]'"
    allowed = ", ".join(f"{n} {name}" for n, name in enumerate(CLASS_NAMES))
    raise ValueError(f"hear_loss '{value}' is not one of {allowed}, {UNKNOWN}")
