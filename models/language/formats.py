"""Formats of text that the language family reads, and their detection."""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path

from gearshift.models.base import DataError
from gearshift.models.common.data_files import first_files
from gearshift.models.common.table import Table
from gearshift.models.common.text_file import TextFile
from gearshift.models.language.readers.columns import form_of
from gearshift.models.language.readers.files import FORMATS, SUFFIXES
from gearshift.models.language.readers.rows import file_kind, suffix_of

EMBEDDED = ("embedded:python", "embedded:commands")
_CSV, _JSONL, _JSON, _PARQUET, _TEXT = FORMATS
_OF_KIND = {"CSV": _CSV, "JSONL": _JSONL, "JSON": _JSON, "Parquet": _PARQUET}

FILES_CHECKED = 300
"""Files of a folder that are checked."""
_HEAD = 1 << 16
"""Bytes of a file that are checked."""
_PARQUET_MAGIC = b"PAR1"
_KEY = re.compile(r'"(\w+)"\s*:')


def recognize(path: Path) -> str | None:
    """Format of a file, or first format found in a folder; None if unknown.

    A folder needs a known format in at least half of its files, and no table or JSONL of other
    columns: else the texts are about the tables. Reads names and the first bytes of the first few
    hundred files. Text that is mostly numbers is not recognized.
    """
    if not path.is_dir():
        return _format(path)
    num_known = 0
    first_format = None
    files = list(islice(first_files(path), FILES_CHECKED))
    for file in files:
        if suffix_of(file) not in SUFFIXES:
            continue
        form = _format(file)
        if form is not None:
            num_known += 1
            first_format = first_format or form
        elif file_kind(file) not in ("text", "JSON"):
            return None
    return first_format if 2 * num_known >= len(files) else None


def possible(path: Path) -> str | None:
    """The format of the first file of rows, whatever its columns are; None if there is none."""
    kinds = map(file_kind, islice(first_files(path), FILES_CHECKED))
    return next((_OF_KIND[kind] for kind in kinds if kind in _OF_KIND), None)


def _format(file: Path) -> str | None:
    try:
        if not file.is_file():
            return None
        kind = file_kind(file)
        if kind == "Parquet":
            with file.open("rb") as opened:
                return _PARQUET if opened.read(len(_PARQUET_MAGIC)) == _PARQUET_MAGIC else None
        if kind == "CSV":
            return _CSV if form_of(Table(TextFile(file), file.name).header, {}).is_sample else None
        head = next(TextFile(file).chunks(_HEAD)).lstrip()
    except (DataError, OSError):
        return None
    if kind == "text" and not head.startswith("{"):
        visible = "".join(head.split())
        letters = sum(map(str.isalpha, visible))
        is_prose = visible.isprintable() and 0 < len(visible) <= 2 * letters
        return _TEXT if is_prose else None
    if not form_of(_KEY.findall(head), {}).is_sample:
        return None
    is_lines = head.startswith("{") and head.partition("\n")[0].rstrip().endswith("}")
    return _JSON if kind == "JSON" and not is_lines else _JSONL
