"""The file formats that this family reads, and how a file is recognized."""

from __future__ import annotations

from pathlib import Path

from gearshift.models.common.data_files import first_files
from gearshift.models.common.table import is_table

EPL, TABLE, RECORDING = FORMATS = (
    "EPL text (level series, with *-analyzed.txt beside them)",
    "table (CSV, TSV or XLSX: patient_id, intensity, 1 … 200, and labels such as hear_loss)",
    "recording (EDF, BDF, EEGLAB .set or BrainVision .vhdr, at more than 6000 Hz)",
)
EMBEDDED = ("embedded:patients", "embedded:few-patients")
_RECORDINGS = (".edf", ".bdf", ".set", ".vhdr", ".ahdr")
_MAGIC = b":RUN-"


def recognize(path: Path) -> str | None:
    """The format of a file, or of the first recognized file of a folder; None if unknown.

    Reads suffixes, and the first bytes of files with an unknown suffix.
    """
    return next(filter(None, map(of_file, first_files(path))), None)


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
