"""Formats of recordings that the event_seg family reads, and their detection."""

from __future__ import annotations

import re
from pathlib import Path

from gearshift.models.common.data_files import first_files

MVSEC, EVT2, EVT3, DAT, EVT21, DSEC = FORMATS = (
    "MVSEC HDF5 with davis/left/events and image_raw",
    "Prophesee RAW EVT 2.0",
    "Prophesee RAW EVT 3.0",
    "Prophesee DAT",
    "Prophesee RAW EVT 2.1",
    "DSEC HDF5 with events/x, y, t and p",
)
BY_ENCODING = {"EVT2": EVT2, "EVT3": EVT3, "EVT21": EVT21, "DAT": DAT}
"""Format of each encoding of a header."""
EMBEDDED = ("embedded:shapes",)
_HDF5 = b"\x89HDF\r\n\x1a\n"


def is_companion(path: Path) -> bool:
    """Whether a file accompanies a recording, by its name."""
    return path.name.endswith(("_gt.hdf5", "_gt.h5", "_masks.h5"))


def recognize(path: Path) -> str | None:
    """Format of a file, or of the first recording of a folder; None if unknown.

    Reads the first bytes of files, and the names of arrays.
    """
    if path.is_dir():
        return next(filter(None, map(recognize, first_files(path))), None)
    if is_companion(path) or not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            start = file.read(4096)
    except OSError:
        return None
    if start.startswith(_HDF5):
        return _layout(path)
    if not start.startswith(b"%"):
        return None
    if path.suffix.lower() == ".dat":
        return DAT
    names = encodings(start.decode("latin-1"))
    if names:
        return BY_ENCODING.get(names[0], EVT2)
    return None


def encodings(header: str) -> list[str]:
    """The encodings that the lines `% evt` and `% format` of a header name, such as EVT21.

    An unknown one has the format EVT2 in `recognize`: its reader names what is wrong with it.
    """
    names = []
    for key, value in re.findall(r"^% ?(evt|format) +([^;\s]+)", header, re.MULTILINE):
        name = value if key == "format" else f"EVT{value}"
        names.append(name.removesuffix(".0").replace(".", ""))
    return list(dict.fromkeys(names))


def _layout(path: Path) -> str | None:
    """The layout of an HDF5 file by its groups; that of MVSEC if it cannot be opened."""
    try:
        import h5py

        with h5py.File(path, "r") as file:
            names = set(file)
    except (ImportError, OSError, RuntimeError, ValueError, LookupError):
        return MVSEC  # its reader says what is wrong
    if "davis" in names:
        return MVSEC
    return DSEC if "events" in names else None
