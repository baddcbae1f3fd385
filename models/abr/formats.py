"""The files of responses that this family reads, and how one is recognised."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

EPL, TABLE, RECORDING = FORMATS = (
    "EPL text (level series, with *-analyzed.txt beside them)",
    "table (CSV or XLSX: patient_id, intensity, hear_loss, 1 … 200)",
    "recording (EDF or EEGLAB .set, at more than 6000 Hz)",
)
EMBEDDED = ("embedded:patients", "embedded:few-patients")
_SUFFIXES = {
    **dict.fromkeys((".csv", ".tsv", ".xlsx"), TABLE),
    **dict.fromkeys((".edf", ".set"), RECORDING),
}
_MAGIC = b":RUN-"


def recognise(path: Path) -> str | None:
    """The format of a file, or of the first file of a folder that has one; None where none has.

    Reads names, and of files whose names tell nothing the first bytes.
    """
    return next((word for _, word in recognised(path)), None)


def recognised(path: Path) -> Iterator[tuple[Path, str]]:
    """Each file at `path` that is in a format, by name, and which one it is."""
    files = [path] if not path.is_dir() else sorted(path.rglob("*"))
    for file in files:
        if file.is_file() and not file.name.startswith(".") and (word := _format(file)):
            yield file, word


def _format(path: Path) -> str | None:
    if word := _SUFFIXES.get(path.suffix.lower()):
        return word
    try:
        with path.open("rb") as file:
            return EPL if file.read(len(_MAGIC)) == _MAGIC else None
    except OSError:
        return None
