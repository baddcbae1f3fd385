"""Tables of responses: what their columns mean, and their rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np

from models.abr import formats
from models.abr.config import CLASS_NAMES, POINTS, UNKNOWN
from models.abr.responses import UNKNOWN_CLASS, ResponseOrigin, ResponseRow
from models.base import DataError
from models.common.data_files import IGNORE, BadRecords, listed
from models.common.table import Table, columns_option, meanings_option, open_table

NAMES = {
    "patient_id": ("patient_id", "patient", "id"),
    "age": ("age",),
    "intensity": ("intensity", "level", "level_db"),
    "rate": ("rate", "stimulus_rate"),
    "fmp": ("fmp",),
    "hear_loss": ("hear_loss", "hearing_loss", "hear_loss_type"),
    # "Latancy": the spelling of common exports of this table.
    "v_latency": ("v_latency", "v_latancy"),
    "v_amplitude": ("v_amplitude",),
    "threshold": ("threshold",),
    "polarity": ("polarity", "stimulus_polarity"),
    "rejected": ("rejected", "rejected_sweeps", "sweeps_rejected"),
}
"""Headings by meaning, first the preferred one; a heading matches as `_fold` gives it."""
REQUIRED = ("patient_id", "intensity", "hear_loss")
LABELS = ("hear_loss", "v_latency", "v_amplitude", "threshold")
POINT_NAMES = tuple(str(point) for point in range(1, POINTS + 1))
UNITS = {"age": "years", "rate": "1/s", "v_latency": "ms", "v_amplitude": "µV"}
_OTHER_UNITS = {
    "age": ("months", "month", "weeks", "days"),
    "rate": ("1/min", "/min", "ms"),
    "v_latency": ("s", "sec", "seconds", "us", "µs", "samples", "points"),
    "v_amplitude": ("nv", "mv", "v", "volts"),
}
"""Units in a heading with which a column would be misread."""
_BRACKETS = re.compile(r"\s*[(\[{]([^)\]}]*)[)\]}]")
_MANY = 20


def name_of(heading: Any) -> str:
    """A heading or a patient as text; a spreadsheet may write 7 as 7.0, which is the same."""
    return str("" if heading is None else heading).strip().removesuffix(".0")


def find_columns(
    headings: Sequence[Any], declared: Mapping[str, str], path: Path, has_labels: bool = True
) -> dict[str, int]:
    """The index of each known column of the table at `path`, by its meaning.

    `declared`: the meaning of a column by its name in lower case; it comes before NAMES. Unless
    `has_labels`, columns of labels are neither required nor returned. Raises DataError if a needed
    column is missing, if two mean the same, or if a heading has another unit.
    """
    names = [name_of(heading) for heading in headings]
    meanings = [declared.get(name.lower()) for name in names]
    columns: dict[str, int] = {}
    read = {meaning: NAMES[meaning] for meaning in NAMES if has_labels or meaning not in LABELS}
    for meaning, known in (read | {point: () for point in POINT_NAMES}).items():
        places = [i for i, m in enumerate(meanings) if m == meaning]
        if not places:
            places = _named(meaning, known, names, meanings)
        if len(places) > 1:
            raise _ambiguous(path, meaning, [names[i] for i in places])
        if places:
            columns[meaning] = places[0]
    for meaning in _OTHER_UNITS:
        if meaning in columns:
            _check_unit(path, names[columns[meaning]], meaning)
    required = [meaning for meaning in REQUIRED if meaning in read]
    if any(name not in columns for name in (*required, *POINT_NAMES)):
        raise _missing(path, names, columns, required)
    return columns


def _named(
    meaning: str, known: Sequence[str], names: Sequence[str], meanings: Sequence[str | None]
) -> list[int]:
    """The places of the columns with the first of the `known` headings that the table has."""
    free = [i for i, declared in enumerate(meanings) if declared is None]
    if not known:
        return [i for i in free if _BRACKETS.sub("", names[i]) == meaning]
    by_heading = ([i for i in free if _fold(names[i]) == _fold(name)] for name in known)
    return next((places for places in by_heading if places), [])


def _fold(name: str) -> str:
    """`name` without a unit in brackets, without case, blanks, `_` and `-`."""
    return re.sub(r"[\s_-]+", "", _BRACKETS.sub("", name)).lower()


def _check_unit(path: Path, name: str, meaning: str) -> None:
    for unit in _BRACKETS.findall(name):
        if unit.strip().lower().replace("μ", "µ") in _OTHER_UNITS[meaning]:
            raise DataError(
                f"the column '{name}' is in {unit.strip()}; {meaning} is read in {UNITS[meaning]}",
                where=str(path),
                allowed=f"{meaning} in {UNITS[meaning]}",
                fix=f"convert the column, or leave it out:  {columns_option({name: IGNORE})}",
            )


def _ambiguous(path: Path, meaning: str, names: Sequence[str]) -> DataError:
    return DataError(
        f"{len(names)} columns mean {meaning}: {', '.join(names)}",
        where=str(path),
        allowed="one column of each meaning",
        fix=columns_option({name: IGNORE for name in names[1:]})
        if len({name.lower() for name in names}) == len(names)
        else "rename or remove one of them",
    )


def _missing(
    path: Path, names: Sequence[str], columns: Mapping[str, int], required: Sequence[str]
) -> DataError:
    facts = [meaning for meaning in required if meaning not in columns]
    points = [point for point in POINT_NAMES if point not in columns]
    free = [n for i, n in enumerate(names) if n and i not in columns.values()]
    suggestions = _nearest(facts, free)
    readable = [name for name in names if name and name not in POINT_NAMES]
    optional = ", ".join(meaning for meaning in NAMES if meaning not in required)
    rest = [meaning for meaning in facts if meaning not in suggestions.values()]
    numbers = range(1, len(rest) + 1) if len(rest) > 1 else [""]
    assignment = suggestions | {f"NAME{n}": m for n, m in zip(numbers, rest, strict=False)}
    lacks, has = listed([*facts, *points], 3), listed(readable, _MANY) or "none"
    return DataError(
        f"the table has no column {lacks} among: {has}",
        where=str(path),
        allowed=f"{', '.join(required)}, 1 … {POINTS}; and if known {optional}",
        did_you_mean=", ".join(f"{name} for {meaning}" for name, meaning in suggestions.items()),
        fix=f"say what a column means:  {columns_option(assignment)}"
        if facts
        else f"name the columns of the signal 1 … {POINTS}",
    )


def _nearest(facts: Sequence[str], free: Sequence[str]) -> dict[str, str]:
    """For each of `facts` the `free` column with the most similar name; missing: none is.

    A single column for a single fact needs no similar name.
    """
    if len(facts) == len(free) == 1:
        return {free[0]: facts[0]}
    folded = {_fold(name): name for name in free}
    suggestions: dict[str, str] = {}
    for meaning in facts:
        words = [_fold(known) for known in NAMES[meaning]]
        close = [c for word in words for c in get_close_matches(word, folded, n=1)]
        inside = [c for c in folded if any(len(word) > 3 and word in c for word in words)]
        column = next((c for c in (*close, *inside) if folded[c] not in suggestions), None)
        if column is not None:
            suggestions[folded[column]] = meaning
    return suggestions


ORIGIN = ResponseOrigin("table", "human", 10.0, "µV, as documented for the columns 1 to 200")
MOST_REJECTED = 100
"""From this number of rejected sweeps on, a response is left out."""
NONE: Mapping[str, str] = {}
Cells = Sequence[Any]


class TableReader:
    """Rows of tables; counts the rows that the rules of the format leave out."""

    format, origin = formats.TABLE, ORIGIN

    def __init__(
        self,
        bad_records: BadRecords,
        declared: Mapping[str, str] = NONE,
        has_labels: bool = True,
        classes: Mapping[str, str] = NONE,
    ) -> None:
        """`declared`: the meaning of a column by its name in lower case; `classes`: of a label.

        Unless `has_labels`, columns of labels are neither required nor read.
        """
        self.bad_records, self.declared, self.has_labels = bad_records, declared, has_labels
        self.other_polarity = 0
        self.many_rejected = 0
        self.without_patient = 0
        self.columns: dict[str, str] = {}
        """The columns of all tables, by their name in lower case."""
        self.notes: list[str] = []
        """What was assumed of files."""
        self._classes = classes
        self._unknown: dict[str, str] = {}
        """The labels that are no class, with the nearest one."""

    def read(self, path: Path, name: str) -> Iterator[ResponseRow]:
        """A row for each response. Reads the disk row by row; counts bad rows.

        Raises DataError if the file is not such a table, or lacks a column.
        """
        table = open_table(path, name)
        columns = find_columns(table.header, self.declared, path, self.has_labels)
        self.columns |= {name_of(head).lower(): name_of(head) for head in table.header}
        for number, cells in table.rows(self.bad_records):
            where = f"{name}:{number}"
            try:
                row = self._row(table, columns, cells, where)
            except ValueError as error:
                self.bad_records.add(where, str(error))
                continue
            if row is not None:
                yield row
        self.notes += [f"{name}: {note}" for note in table.notes]

    def check_declared(self) -> None:
        """Raise DataError if a column of data.columns is in no table that was read."""
        for name in self.declared:
            if name not in self.columns:
                close = [self.columns[n] for n in get_close_matches(name, self.columns, n=1)]
                raise DataError(
                    f"no table has the column '{name}' of data.columns",
                    where="data.columns",
                    allowed=", ".join(n for n in self.columns.values() if n not in POINT_NAMES),
                    did_you_mean="".join(close),
                    fix=columns_option({close[0]: self.declared[name]}) if close else "",
                )

    def _row(self, table: Table, columns: Mapping[str, int], cells: Cells, where: str) -> ResponseRow | None:
        """One response; None if the rules leave it out. Raises ValueError."""

        def cell(name: str) -> Any:
            index = columns.get(name)
            return None if index is None else cells[index]

        def number(name: str) -> float:
            return table.number(cell(name), name)

        polarity = str(cell("polarity") or "alternating").strip().lower()
        if not polarity.startswith("alter"):
            self.other_polarity += 1
            return None
        if number("rejected") >= MOST_REJECTED:
            self.many_rejected += 1
            return None
        patient = name_of(cell("patient_id"))
        if not patient:
            self.without_patient += 1
        signal = [number(point) for point in POINT_NAMES]
        with np.errstate(over="ignore"):  # what float32 cannot hold is reported as not finite
            microvolts = np.array(signal, np.float32)
        facts = {n: number(n) for n in ("age", "rate", "fmp", "threshold")}
        return ResponseRow(
            # Without a patient each row is its own group, under a name that no patient has.
            f"patient {patient}" if patient else f"no patient: {where}",
            where,
            microvolts,
            target=self._target(table, cell("hear_loss")),
            level=number("intensity"),
            **_wave_v(number, "v_latency" in columns),
            **facts,
        )

    def _target(self, table: Table, value: Any) -> int:
        """A class from 0 to 4, its name or a label of data.classes; empty: unknown."""
        name = name_of(value).lower()
        name = self._classes.get(name, name)
        if name in CLASS_NAMES:
            return CLASS_NAMES.index(name)
        if name == UNKNOWN:
            return UNKNOWN_CLASS
        try:
            number = table.number(name, "hear_loss")
        except ValueError:
            pass
        else:
            if isnan(number):
                return UNKNOWN_CLASS
            if number in range(len(CLASS_NAMES)):
                return int(number)
        close = get_close_matches(name, CLASS_NAMES, n=1)
        self._unknown[name_of(value)] = close[0] if close else UNKNOWN
        option = meanings_option("data.classes", self._unknown)
        self.bad_records.fix = f"say what each label means:  {option}"
        allowed = ", ".join(f"{n} {name}" for n, name in enumerate(CLASS_NAMES))
        raise ValueError(f"hear_loss '{value}' is not one of {allowed}, {UNKNOWN}")


def _wave_v(number: Callable[[str], float], is_annotated: bool) -> dict[str, float]:
    """Labels of wave V; an empty latency, or one that is not positive, means no wave V."""
    latency = number("v_latency")
    if not is_annotated:
        return {}
    if not latency > 0:
        return {"exists": 0.0}
    return {"exists": 1.0, "latency": latency, "amplitude": number("v_amplitude")}
