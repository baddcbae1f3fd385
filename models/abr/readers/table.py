"""Tables of responses: what their columns mean, and their rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np

from models.abr import formats
from models.abr.config import CLASS_NAMES, COLUMNS, POINTS, UNKNOWN
from models.abr.responses import UNKNOWN_CLASS, ResponseOrigin, ResponseRow
from models.base import DataError
from models.common.data_files import IGNORE, BadRecords, listed
from models.common.table import Table, columns_option, open_table

NAMES = tuple(name for name in COLUMNS if name != IGNORE)
"""The names of columns, in lower or upper case; others are named by data.columns."""
REQUIRED = ("patient_id", "intensity", "hear_loss")
LABELS = ("hear_loss", "v_latency", "v_amplitude", "threshold")
POINT_NAMES = tuple(str(point) for point in range(1, POINTS + 1))
_MANY = 20


def name_of(heading: Any) -> str:
    """A heading or a patient as text; a spreadsheet may write 7 as 7.0, which is the same."""
    return str("" if heading is None else heading).strip().removesuffix(".0")


def find_columns(
    headings: Sequence[Any], declared: Mapping[str, str], path: Path, has_labels: bool = True
) -> dict[str, int]:
    """The index of each column of the table at `path`, by its meaning.

    `declared`: the meaning of a column by its name in lower case. Unless `has_labels`, columns of
    labels are neither required nor returned. Raises DataError if a needed column is missing, or if
    two mean the same.
    """
    names = [name_of(heading) for heading in headings]
    meanings = [declared.get(name.lower(), name.lower()) for name in names]
    read = [meaning for meaning in NAMES if has_labels or meaning not in LABELS]
    columns: dict[str, int] = {}
    for meaning in (*read, *POINT_NAMES):
        places = [i for i, other in enumerate(meanings) if other == meaning]
        named = [i for i in places if declared.get(names[i].lower()) == meaning]
        places = named or places
        if len(places) > 1:
            raise DataError(
                f"{len(places)} columns mean {meaning}: {', '.join(names[i] for i in places)}",
                where=str(path),
                allowed="one column of each meaning",
                fix=columns_option({names[i]: IGNORE for i in places[1:]}),
            )
        if places:
            columns[meaning] = places[0]
    required = [meaning for meaning in REQUIRED if meaning in read]
    if missing := [name for name in (*required, *POINT_NAMES) if name not in columns]:
        has = [name for name in names if name and name not in POINT_NAMES]
        optional = ", ".join(meaning for meaning in NAMES if meaning not in required)
        raise DataError(
            f"the table has no column {listed(missing, 3)} among: {listed(has, _MANY) or 'none'}",
            where=str(path),
            allowed=f"{', '.join(required)}, 1 … {POINTS}; and if known {optional}",
            fix=f"say what a column means:  {columns_option({'NAME': missing[0]})}",
        )
    return columns


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

    def read(self, path: Path, name: str) -> Iterator[ResponseRow]:
        """A row for each response. Reads the disk row by row; counts bad rows.

        Raises DataError if the file is not such a table, or lacks a column.
        """
        table = open_table(path, name)
        columns = find_columns(table.header, self.declared, path, self.has_labels)
        self._note_unread(table.header, columns, name)
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

    def _note_unread(self, header: Sequence[Any], columns: Mapping[str, int], name: str) -> None:
        known = {*columns.values()} | {i for i, h in enumerate(header) if name_of(h).lower() in LABELS}
        unread = [name_of(head) for i, head in enumerate(header) if i not in known]
        unread = [head for head in unread if head and self.declared.get(head.lower()) != IGNORE]
        if unread:
            self.notes.append(f"{name}: columns that are not read: {listed(unread, _MANY)}")

    def check_declared(self) -> None:
        """Raise DataError if a column of data.columns is in no table that was read."""
        for name in self.declared:
            if name not in self.columns:
                raise DataError(
                    f"no table has the column '{name}' of data.columns",
                    where="data.columns",
                    allowed=", ".join(n for n in self.columns.values() if n not in POINT_NAMES),
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
        self.bad_records.fix = f"say what each label means:  --set 'data.classes=[LABEL={UNKNOWN}]'"
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
