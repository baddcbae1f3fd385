"""The file formats that this family reads, and how a file is recognised."""

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
    """The format of a file, or of the first recognised file of a folder; None if unknown.

    Reads suffixes, and the first bytes of files with an unknown suffix.
    """
    return next((name for _, name in recognised(path)), None)


def recognised(path: Path) -> Iterator[tuple[Path, str]]:
    """Each file at `path` in a known format, sorted by name, and its format."""
    files = [path] if not path.is_dir() else sorted(path.rglob("*"))
    for file in files:
        if file.is_file() and not file.name.startswith(".") and (name := _format(file)):
            yield file, name


def _format(path: Path) -> str | None:
    if name := _SUFFIXES.get(path.suffix.lower()):
        return name
    try:
        with path.open("rb") as file:
            return EPL if file.read(len(_MAGIC)) == _MAGIC else None
    except OSError:
        return None
