"""The forms of recordings that this family reads, and how one is recognised."""

from __future__ import annotations

import re
from pathlib import Path

FORMATS = (
    "MVSEC HDF5 with davis/left/events and image_raw",
    "Prophesee RAW EVT 2.0",
    "Prophesee RAW EVT 3.0",
    "Prophesee DAT",
)
EMBEDDED = ("embedded:shapes",)
ASIDE = ("_gt.hdf5", "_gt.h5", "_masks.h5")
"""Ends of the names of files that accompany a recording."""
_HDF5 = b"\x89HDF\r\n\x1a\n"


def recognise(path: Path) -> str | None:
    """The form of a file, or of the first recording of a folder; None where none is known.

    Reads the first bytes of files.
    """
    if path.is_dir():
        found = (recognise(file) for file in sorted(path.rglob("*")) if file.is_file())
        return next((form for form in found if form is not None), None)
    if path.name.endswith(ASIDE):
        return None
    try:
        with path.open("rb") as file:
            start = file.read(4096)
    except OSError:
        return None
    if start.startswith(_HDF5):
        return FORMATS[0]
    if not start.startswith(b"%"):
        return None
    if path.suffix.lower() == ".dat":
        return FORMATS[3]
    match = re.search(rb"^% (?:evt |format EVT)([23])", start, re.MULTILINE)
    return None if match is None else FORMATS[int(match[1]) - 1]
