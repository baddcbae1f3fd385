"""Formats of text that the language family reads, and their detection."""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path

from gearshift.models.base import DataError
from gearshift.models.common.data_files import first_files
from gearshift.models.common.table import Table
from gearshift.models.common.text_file import TextFile
from gearshift.models.language.readers.columns import columns_in, is_sample
from gearshift.models.language.readers.files import FORMATS, SUFFIXES, file_kind, suffix_of

EMBEDDED = ("embedded:python", "embedded:commands")
_CSV, _JSONL, _JSON, _PARQUET, _TEXT = FORMATS

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
    files = list(islice(first_files(path), FILES_CHECKED))
    format_of = {file: _format(file) for file in files if suffix_of(file) in SUFFIXES}
    known = [file for file, form in format_of.items() if form is not None]
    tables = [f for f in format_of if f not in known and file_kind(f) not in ("text", "JSON")]
    return format_of[known[0]] if known and not tables and 2 * len(known) >= len(files) else None


def _format(file: Path) -> str | None:
    kind = file_kind(file)
    try:
        if not file.is_file():
            return None
        if kind == "Parquet":
            with file.open("rb") as opened:
                return _PARQUET if opened.read(len(_PARQUET_MAGIC)) == _PARQUET_MAGIC else None
        if kind == "CSV":
            names = Table(TextFile(file), file.name).header
            form = _CSV
        else:
            head = next(TextFile(file).chunks(_HEAD)).lstrip()
            form = _JSON if kind == "JSON" and head.startswith("[") else _JSONL
            if kind == "text" and not head.startswith("{"):
                visible = "".join(head.split())
                is_prose = visible.isprintable() and 0 < len(visible) <= 2 * sum(
                    map(str.isalpha, visible)
                )
                return _TEXT if is_prose else None
            names = _KEY.findall(head)
    except (DataError, OSError):
        return None
    return form if is_sample(columns_in(names, {})[0]) else None
