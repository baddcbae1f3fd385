"""Formats of text that the language family reads, and their detection."""

from __future__ import annotations

import json
import re
from itertools import islice
from pathlib import Path

from models.base import DataError
from models.common.data_files import first_files
from models.common.table import TextTable
from models.common.text_file import TextFile
from models.language.readers.columns import NAMES, columns_in
from models.language.readers.plain_text import FORMATS, SUFFIXES, file_kind, suffix_of

EMBEDDED = ("embedded:python", "embedded:commands")
_CSV, _JSONL, _JSON, _PARQUET, _TEXT = FORMATS

FILES_CHECKED = 300
"""Files of a folder that are checked."""
_HEAD = 1 << 16
"""Bytes of a file that are checked."""
_PARQUET_MAGIC = b"PAR1"
_KEYS = "|".join(name for names in NAMES.values() for name in names)
_FIRST_KEY = re.compile(rf'\s*\{{\s*"({_KEYS})"\s*:')


def recognize(path: Path) -> str | None:
    """Format of a file, or first format found in a folder; None if unknown.

    A folder needs a known format in at least half of its files, and its tables and JSONL of other
    columns must not be larger than these: else the texts are about the tables. Reads names and the
    first bytes of the first few hundred files. Tables and JSONL with other columns, and text that
    is mostly numbers, are not recognized.
    """
    if not path.is_dir():
        return _format(path)
    files = list(islice(first_files(path), FILES_CHECKED))
    format_of = {file: _format(file) for file in files if suffix_of(file) in SUFFIXES}
    known = [file for file, form in format_of.items() if form is not None]
    tables = [f for f in format_of if f not in known and file_kind(f) not in ("text", "JSON")]
    sizes = (sum(file.stat().st_size for file in group) for group in (tables, known))
    is_corpus = known and 2 * len(known) >= len(files) and next(sizes) <= next(sizes)
    return format_of[known[0]] if is_corpus else None


def _format(file: Path) -> str | None:
    if not file.is_file():
        return None
    try:
        if file_kind(file) == "Parquet":
            with file.open("rb") as opened:
                return _PARQUET if opened.read(len(_PARQUET_MAGIC)) == _PARQUET_MAGIC else None
        head = next(TextFile(file).chunks(_HEAD))
    except (DataError, OSError):
        return None
    if file_kind(file) == "JSON" and head.lstrip().startswith("["):
        return _JSON if _is_array_of_rows(head) else None
    if file_kind(file) == "CSV":
        return _CSV if _has_columns(file) else None
    lines = (line for line in head.split("\n") if line.strip())
    first, is_cut = next(lines, ""), "\n" not in head.lstrip()
    if file_kind(file) == "JSONL" or first.lstrip().startswith("{"):
        return _JSONL if _has_keys(first, is_cut and file_kind(file) == "JSONL") else None
    return _TEXT if _is_prose(head) else None


def _is_array_of_rows(head: str) -> bool:
    """Whether the first row of a JSON array has known keys; if it is cut, its first key."""
    rows = head[head.find("[") + 1 :].lstrip()
    try:
        row, _ = json.JSONDecoder().raw_decode(rows)
    except (ValueError, RecursionError):
        return _FIRST_KEY.match(rows) is not None
    return _are_columns(row)


def _has_columns(file: Path) -> bool:
    try:
        return _are_columns(dict.fromkeys(TextTable(TextFile(file), file.name).header))
    except DataError:
        return False


def _has_keys(line: str, is_cut: bool) -> bool:
    """Whether a line is an object with known keys; if `is_cut`, whether its first key is known."""
    try:
        return _are_columns(json.loads(line))
    except (ValueError, RecursionError):
        return is_cut and _FIRST_KEY.match(line) is not None


def _are_columns(row: object) -> bool:
    return isinstance(row, dict) and columns_in(list(row), {})[0].are_complete


def _is_prose(text: str) -> bool:
    visible = "".join(text.split())
    return visible.isprintable() and 0 < len(visible) <= 2 * sum(map(str.isalpha, visible))
