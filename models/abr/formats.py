"""The file formats that this family reads, and how a file is recognized."""

from __future__ import annotations

from pathlib import Path

from gearshift.models.base import DataError
from gearshift.models.common.data_files import first_files
from gearshift.models.common.table import Table, is_table, text_of
from gearshift.models.common.text_file import TextFile

EPL, TABLE, RECORDING = FORMATS = (
    "EPL text (level series, with *-analyzed.txt beside them)",
    "table (CSV, TSV or XLSX: patient_id, intensity, 1 … 200, and labels such as hear_loss)",
    "recording (EDF, BDF, EEGLAB .set or BrainVision .vhdr, at more than 6000 Hz)",
)
EMBEDDED = ("embedded:patients", "embedded:few-patients")
_RECORDINGS = (".edf", ".bdf", ".set", ".vhdr", ".ahdr")
_MAGIC = b":RUN-"
_COLUMNS = ("patient_id", "intensity", "200")
"""A table with one of these is one of responses."""


def recognize(path: Path) -> str | None:
    """The format of a file, or of the first recognized file of a folder; None if unknown.

    Reads suffixes, the first bytes of files with an unknown suffix, and the headers of tables.
    """
    return next(filter(None, map(_recognized, first_files(path))), None)


def possible(path: Path) -> str | None:
    """As `recognize`, but of a table with any columns: data.columns may name them."""
    return next(filter(None, map(of_file, first_files(path))), None)


def _recognized(path: Path) -> str | None:
    form = of_file(path)
    if form == TABLE:
        try:
            names = {text_of(name).lower() for name in Table(TextFile(path)).header}
        except DataError:
            return None
        return None if names.isdisjoint(_COLUMNS) else TABLE
    return form


def of_file(path: Path) -> str | None:
    """The format of a file, by its suffix or first bytes; None if unknown. Reads the disk."""
    if not path.is_file():
        return None
    if is_table(path):
        return TABLE
    if path.suffix.lower() in _RECORDINGS:
        return RECORDING
    try:
        with path.open("rb") as file:
            return EPL if file.read(len(_MAGIC)) == _MAGIC else None
    except OSError:
        return None
