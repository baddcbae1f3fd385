"""Formats of text that the language family reads, and their detection."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from gearshift.models.base import DataError
from gearshift.models.common.data_files import first_files
from gearshift.models.common.text_file import TextFile
from gearshift.models.language.readers.files import FORMATS, SUFFIXES, is_data
from gearshift.models.language.readers.rows import file_kind, suffix_of

EMBEDDED = ("embedded:python", "embedded:commands")
_CSV, _JSONL, _JSON, _PARQUET, _TEXT = FORMATS
_OF_KIND = {"CSV": _CSV, "JSONL": _JSONL, "JSON": _JSON, "Parquet": _PARQUET, "Arrow": _PARQUET}

FILES_CHECKED = 300
"""Files of a folder that are checked."""
_HEAD = 1 << 16
"""Bytes of a file that are checked."""


def recognize(path: Path) -> str | None:
    """Format of a file, or first format found in a folder; None if unknown.

    A file of rows may have any columns: the reader names those that it does not know. A folder
    needs a known format in at least half of its files. Reads names, and the first bytes of the
    first few hundred texts. Text that is mostly numbers is not recognized.
    """
    if not path.is_dir():
        return _format(path)
    files = [file for file in islice(first_files(path), FILES_CHECKED) if is_data(file)]
    chosen = [file for file in files if suffix_of(file) in SUFFIXES]
    known = [form for form in map(_format, chosen) if form is not None]
    return known[0] if known and 2 * len(known) >= len(files) else None


def _format(file: Path) -> str | None:
    kind = file_kind(file)
    if kind in _OF_KIND:
        return _OF_KIND[kind]
    try:
        if not file.is_file():
            return None
        head = next(TextFile(file).chunks(_HEAD))
    except (DataError, OSError):
        return None
    visible = "".join(head.split())
    letters = sum(map(str.isalpha, visible))
    is_prose = visible.isprintable() and 0 < len(visible) <= 2 * letters
    return _TEXT if is_prose else None
