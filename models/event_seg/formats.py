"""Formats of recordings that the event_seg family reads, and their detection."""

from __future__ import annotations

import re
from pathlib import Path

from models.common.data_files import first_files

FORMATS = (
    "MVSEC HDF5 with davis/left/events and image_raw",
    "Prophesee RAW EVT 2.0",
    "Prophesee RAW EVT 3.0",
    "Prophesee DAT",
)
EMBEDDED = ("embedded:shapes",)
COMPANION_SUFFIXES = ("_gt.hdf5", "_gt.h5", "_masks.h5")
"""Name endings of files that accompany a recording."""
_HDF5 = b"\x89HDF\r\n\x1a\n"


def recognize(path: Path) -> str | None:
    """Format of a file, or of the first recording of a folder; None if unknown.

    Reads the first bytes of files.
    """
    if path.is_dir():
        found = map(recognize, first_files(path))
        return next((name for name in found if name is not None), None)
    if path.name.endswith(COMPANION_SUFFIXES) or not path.is_file():
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
