"""The file formats that this family reads, and how a file is recognised."""

from __future__ import annotations

from pathlib import Path

ZUCO, EDF, BDF, EEGLAB = (
    "ZuCo .mat files (MATLAB 5, 7 or 7.3)",
    "EDF or EDF+ recordings",
    "BDF recordings",
    "EEGLAB .set files, with their .fdt",
)
FORMATS = (ZUCO, EDF, BDF, EEGLAB)
EMBEDDED = ("embedded:reading", "embedded:reading-small")
RECORDED = (EDF, BDF, EEGLAB)
"""Continuous recordings."""

_HDF5 = b"\x89HDF\r\n\x1a\n"
_HEAD_BYTES = 1024
_SUFFIXES = {".mat", ".edf", ".bdf", ".set"}


def is_hdf5(head: bytes) -> bool:
    """Whether a file starts like HDF5; MATLAB 7.3 puts 512 bytes of its own before."""
    return head.startswith(_HDF5) or head[512:].startswith(_HDF5)


def of_file(path: Path) -> str | None:
    """The format of a file, by its first bytes; None if unknown. Reads the disk.

    .mat and .set files are both MATLAB files and differ by their suffix.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
    except OSError:
        return None
    if head.startswith(b"\xffBIOSEMI"):
        return BDF
    if head.startswith(b"0       ") and path.suffix.lower() != ".txt":
        return EDF
    if is_hdf5(head) or head.startswith(b"MATLAB 5.0 MAT-file"):
        return EEGLAB if path.suffix.lower() == ".set" else ZUCO
    return None


def candidates(path: Path) -> list[Path]:
    """The file itself, or the files of a folder with the suffix of a recording, by name."""
    if not path.is_dir():
        return [path]
    found = (p for p in path.rglob("*") if p.suffix.lower() in _SUFFIXES and p.is_file())
    return sorted(p for p in found if not p.name.startswith("."))


def recognise(path: Path) -> str | None:
    """The format of a file, or of the first recording of a folder; None if unknown.

    Reads only the first bytes.
    """
    return next((name for file in candidates(path) if (name := of_file(file))), None)
