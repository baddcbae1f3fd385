"""The file formats that this family reads, and how a file is recognized."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

from models.base import DataError
from models.common.data_files import files, first_files
from models.common.table import is_table

EPL, TABLE, RECORDING = FORMATS = (
    "EPL text (level series, with *-analyzed.txt beside them)",
    "table (CSV, TSV or XLSX: patient_id, intensity, hear_loss, 1 … 200)",
    "recording (EDF, BDF, EEGLAB .set or BrainVision .vhdr, at more than 6000 Hz)",
)
EMBEDDED = ("embedded:patients", "embedded:few-patients")
_RECORDINGS = (".edf", ".bdf", ".set", ".vhdr", ".ahdr")
_MAGIC = b":RUN-"
_PICKLES = (".pkl", ".pickle", ".joblib")
_EXPORT = """\
import csv, joblib
saved = joblib.load({source!r})
rows, scaler = (saved["data"], saved["scaler"]) if isinstance(saved, dict) else (saved, None)
names = "patient_id age intensity rate fmp hear_loss v_latency v_amplitude threshold"
with open({target!r}, "w", newline="", encoding="utf-8") as file:
    table = csv.writer(file)
    table.writerow([*names.split(), *range(1, 201)])
    for row in rows:
        facts = scaler.inverse_transform([row["static_params"]])[0] if scaler else [""] * 4
        known = zip(row.get("v_peak", []), row.get("v_peak_mask", []))
        peak = ([value if is_known else "" for value, is_known in known] + ["", ""])[:2]
        labels = [row["target"], *peak, row.get("clinical_threshold", "")]
        table.writerow([row["patient_id"], *facts, *labels, *row["signal"]])
"""
"""Lines that write the pickle of ABR data as a table."""


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


def refusal(path: Path) -> DataError | None:
    """The error for data that is not read but can be exported: a pickle. Reads the disk.

    A pickle is never loaded: it may run any program.
    """
    source = next((file for file in files(path) if file.suffix.lower() in _PICKLES), None)
    if source is None:
        return None
    target = str(source.with_suffix(".csv"))
    lines = _EXPORT.format(source=str(source), target=target)
    return DataError(
        f"'{source}' is a pickle, which can run any program when it is loaded",
        where="data.path",
        allowed="the table it was made from, whose signals are in µV (those of the pickle are "
        "scaled one by one), such as abr_dataset.xlsx; or a table exported from it",
        fix="if you trust it, run these lines in a Python with joblib and scikit-learn; then use  "
        f"--data {quote(target)}\n{lines}",
    )
