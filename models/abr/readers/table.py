"""Tables of responses, CSV or XLSX: one per row, with facts, labels and the columns 1 to 200."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import nan
from pathlib import Path
from typing import Any

import numpy as np

from models.abr.config import POINTS
from models.abr.responses import CLASS_NAMES, STATIC_NAMES, UNKNOWN_CLASS, Origin, Row
from models.base import DataError
from models.common.data_files import BadRecords, unreadable_file

ORIGIN = Origin("table", "human", 10.0, "µV, as documented for the columns 1 to 200")
MOST_REJECTED = 100
"""From this number of rejected sweeps on, a response is left out."""
ALIASES = {
    "patient_id": ("patient_id", "patient", "patientid", "id"),
    "age": ("age",),
    "level": ("intensity", "level", "level_db"),
    "rate": ("rate", "stimulus_rate"),
    "fmp": ("fmp",),
    "target": ("hear_loss", "hearing_loss", "hear_loss_type"),
    # "Latancy": the spelling of common exports of this table.
    "latency": ("v_latency", "v_latancy"),
    "amplitude": ("v_amplitude",),
    "threshold": ("threshold",),
    "polarity": ("polarity", "stimulus_polarity"),
    "rejected": ("rejected", "rejected_sweeps", "sweeps_rejected"),
}
REQUIRED = ("patient_id", "level", "target")
Cells = Sequence[Any]


class TableReader:
    """Rows of tables; counts the rows that the rules of the format leave out."""

    def __init__(self, bad_records: BadRecords) -> None:
        self.bad_records = bad_records
        self.other_polarity = 0
        self.many_rejected = 0
        self.without_patient = 0

    def read(self, path: Path, name: str) -> Iterator[Row]:
        """A row for each response. Reads the disk row by row; counts bad rows.

        Raises DataError if the file is not such a table, or lacks a column.
        """
        rows = _sheet(path) if path.suffix.lower() == ".xlsx" else _text(path)
        heads = next(rows, None)
        if heads is None:
            raise DataError("the table is empty", where=str(path))
        columns = _columns(heads, path)
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
        patient = _name(cell("patient_id"))
        if not patient:
            self.without_patient += 1
        signal = [_number(cell(str(point)), str(point)) for point in range(1, POINTS + 1)]
        facts = {name: _number(cell(name), name) for name in (*STATIC_NAMES, "threshold")}
        return Row(
            # Without a patient each row is its own group, under a name that no patient has.
            f"patient {patient}" if patient else f"no patient: {where}",
            where,
            np.array(signal, np.float32),
            target=_target(cell("target")),
            **_wave_v(cell, "latency" in columns),
            **facts,
        )


def _wave_v(cell: Callable[[str], Any], is_annotated: bool) -> dict[str, float]:
    """Labels of wave V; an empty latency, or one that is not positive, means no wave V."""
    latency = _number(cell("latency"), "latency")
    if not is_annotated:
        return {}
    if not latency > 0:
        return {"exists": 0.0}
    amplitude = _number(cell("amplitude"), "amplitude")
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


def _name(value: Any) -> str:
    """A patient or a heading; a spreadsheet may write 7 as 7.0, which is the same."""
    return str("" if value is None else value).strip().removesuffix(".0")


def _number(value: Any, name: str) -> float:
    if not _is_filled(value):
        return nan
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} '{value}' is not a number") from None


def _is_filled(value: Any) -> bool:
    return value is not None and str(value).strip() != ""


def _columns(heads: Cells, path: Path) -> dict[str, int]:
    """The index of each known column, by our name for it."""
    names = [_name(head).lower().replace(" ", "_").replace("-", "_") for head in heads]
    columns = {
        name: names.index(alias)
        for name, aliases in ALIASES.items()
        for alias in aliases
        if alias in names
    }
    columns |= {name: index for index, name in enumerate(names) if name in _POINTS}
    if missing := [name for name in (*REQUIRED, *_POINTS) if name not in columns]:
        few = ", ".join(ALIASES.get(name, (name,))[0] for name in missing[:3])
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise DataError(
            f"the table has no column {few}{more}",
            where=str(path),
            allowed="patient_id, intensity, hear_loss, 1 … 200; and age, rate, fmp, v_latency, "
            "v_amplitude, threshold, polarity, rejected if known",
        )
    return columns


_POINTS = dict.fromkeys(str(point) for point in range(1, POINTS + 1))


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
