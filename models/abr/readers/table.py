"""Tables of responses, CSV or XLSX: one per row, with facts, labels and the columns 1 to 200."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from math import nan
from pathlib import Path
from typing import Any

import numpy as np

from models.abr.readers.columns import POINT_NAMES, find_columns, name_of
from models.abr.responses import CLASS_NAMES, UNKNOWN_CLASS, Origin, Row
from models.base import DataError
from models.common.columns import columns_option
from models.common.data_files import BadRecords, unreadable_file

ORIGIN = Origin("table", "human", 10.0, "µV, as documented for the columns 1 to 200")
MOST_REJECTED = 100
"""From this number of rejected sweeps on, a response is left out."""
NONE: Mapping[str, str] = {}
Cells = Sequence[Any]


class TableReader:
    """Rows of tables; counts the rows that the rules of the format leave out."""

    def __init__(
        self,
        bad_records: BadRecords,
        declared: Mapping[str, str] = NONE,
        has_labels: bool = True,
    ) -> None:
        """`declared`: the meaning of a column by its name in lower case.

        Unless `has_labels`, columns of labels are neither required nor read.
        """
        self.bad_records, self.declared, self.has_labels = bad_records, declared, has_labels
        self.other_polarity = 0
        self.many_rejected = 0
        self.without_patient = 0
        self.columns: dict[str, str] = {}
        """The columns of all tables, by their name in lower case."""

    def read(self, path: Path, name: str) -> Iterator[Row]:
        """A row for each response. Reads the disk row by row; counts bad rows.

        Raises DataError if the file is not such a table, or lacks a column.
        """
        rows = _sheet(path) if path.suffix.lower() == ".xlsx" else _text(path)
        heads = next(rows, None)
        if heads is None:
            raise DataError("the table is empty", where=str(path))
        columns = find_columns(heads, self.declared, path, self.has_labels)
        self.columns |= {name_of(head).lower(): name_of(head) for head in heads}
        for number, cells in enumerate(rows, start=2):
            if not any(_is_filled(cell) for cell in cells):
                continue
            where = f"{name}:{number}"
            try:
                row = self._row(columns, cells, where)
            except ValueError as error:
                self.bad_records.add(where, str(error))
                continue
            if row is not None:
                yield row

    def check_declared(self) -> None:
        """Raise DataError if a column of data.columns is in no table that was read."""
        for name in self.declared:
            if name not in self.columns:
                near = get_close_matches(name, self.columns, n=1)
                raise DataError(
                    f"no table has the column '{name}' of data.columns",
                    where="data.columns",
                    allowed=", ".join(n for n in self.columns.values() if n not in POINT_NAMES),
                    did_you_mean=self.columns[near[0]] if near else "",
                    fix=columns_option({self.columns[near[0]]: self.declared[name]})
                    if near
                    else "",
                )

    def _row(self, columns: Mapping[str, int], cells: Cells, where: str) -> Row | None:
        """One response; None if the rules leave it out. Raises ValueError."""

        def cell(name: str) -> Any:
            index = columns.get(name)
            return cells[index] if index is not None and index < len(cells) else None

        polarity = str(cell("polarity") or "alternating").strip().lower()
        if not polarity.startswith("alter"):
            self.other_polarity += 1
            return None
        if _number(cell("rejected"), "rejected") >= MOST_REJECTED:
            self.many_rejected += 1
            return None
        patient = name_of(cell("patient_id"))
        if not patient:
            self.without_patient += 1
        signal = [_number(cell(point), point) for point in POINT_NAMES]
        with np.errstate(over="ignore"):  # what float32 cannot hold is reported as not finite
            microvolts = np.array(signal, np.float32)
        facts = {n: _number(cell(n), n) for n in ("age", "rate", "fmp", "threshold")}
        return Row(
            # Without a patient each row is its own group, under a name that no patient has.
            f"patient {patient}" if patient else f"no patient: {where}",
            where,
            microvolts,
            target=_target(cell("hear_loss")),
            level=_number(cell("intensity"), "intensity"),
            **_wave_v(cell, "v_latency" in columns),
            **facts,
        )


def _wave_v(cell: Callable[[str], Any], is_annotated: bool) -> dict[str, float]:
    """Labels of wave V; an empty latency, or one that is not positive, means no wave V."""
    latency = _number(cell("v_latency"), "v_latency")
    if not is_annotated:
        return {}
    if not latency > 0:
        return {"exists": 0.0}
    amplitude = _number(cell("v_amplitude"), "v_amplitude")
    return {"exists": 1.0, "latency": latency, "amplitude": amplitude}


def _target(value: Any) -> int:
    """A class from 0 to 4 or its name; empty: unknown."""
    if not _is_filled(value):
        return UNKNOWN_CLASS
    name = str(value).strip().lower()
    if name in CLASS_NAMES:
        return CLASS_NAMES.index(name)
    try:
        number = float(name)
    except ValueError:
        number = nan
    if number not in range(len(CLASS_NAMES)):
        allowed = ", ".join(f"{n} {name}" for n, name in enumerate(CLASS_NAMES))
        raise ValueError(f"hear_loss '{value}' is not one of {allowed}")
    return int(number)


def _number(value: Any, name: str) -> float:
    if not _is_filled(value):
        return nan
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} '{value}' is not a number") from None


def _is_filled(value: Any) -> bool:
    return value is not None and str(value).strip() != ""


def _text(path: Path) -> Iterator[Cells]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as text:
            first = text.readline()
            text.seek(0)
            delimiter = max((",", ";", "\t"), key=first.count)
            yield from csv.reader(text, delimiter=delimiter, strict=True)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"the table cannot be read: {error}", where=str(path)) from None
    except OSError as error:
        raise unreadable_file(path, error) from None


def _sheet(path: Path) -> Iterator[Cells]:
    from openpyxl import load_workbook
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        book = load_workbook(path, read_only=True, data_only=True)
        try:
            yield from book.worksheets[0].iter_rows(values_only=True)
        finally:
            book.close()
    except (InvalidFileException, zipfile.BadZipFile, KeyError, IndexError, ValueError) as error:
        raise DataError(f"the workbook cannot be read: {error}", where=str(path)) from None
    except OSError as error:
        raise unreadable_file(path, error) from None
