"""The forms of text that this family reads, and how one is recognised."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from models.base import DataError
from models.language.readers.json_and_csv import columns_in
from models.language.readers.text_file import CSV, FORMATS, JSONL, TEXT, TextFile, file_kind

EMBEDDED = ("embedded:python", "embedded:commands")
_CSV, _JSONL, _TEXT = FORMATS

LOOKED_AT = 300
"""Files of a folder that are looked at."""
_HEAD = 1 << 16
"""Bytes of a file that are looked at."""
_FIRST_KEY = re.compile(r'\s*\{\s*"(text|messages|input|prompt|user)"\s*:')


def recognise(path: Path) -> str | None:
    """The form of a file, or the first form in a folder; None where there is none.

    Of a folder, where at least half of the files have one. Reads names and the first bytes of the
    first few hundred files: a table or JSONL with other columns is not ours, nor is text that is
    mostly numbers.
    """
    if not path.is_dir():
        return _form(path) if path.is_file() else None
    files = list(islice(_files(path), LOOKED_AT))
    found = [form for file in files if (form := _known_form(file))]
    return found[0] if found and 2 * len(found) >= len(files) else None


def _files(folder: Path) -> Iterator[Path]:
    """The files that are not hidden, as the system lists them: a large folder is not gone through.

    In the order of names within each folder.
    """
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(root, name) for name in sorted(names) if not name.startswith("."))


def _known_form(file: Path) -> str | None:
    """As _form; None where the suffix is not known: a folder gives known ones alone."""
    return _form(file) if file.suffix.lower() in TEXT | JSONL | CSV else None


def _form(file: Path) -> str | None:
    try:
        head = next(TextFile(file).chunks(_HEAD))
    except (DataError, OSError):
        return None
    lines = (line for line in head.split("\n") if line.strip())
    first, is_cut = next(lines, ""), "\n" not in head.lstrip()
    if file_kind(file) == "CSV":
        return _CSV if _has_columns(first) else None
    if file_kind(file) == "JSONL" or first.lstrip().startswith("{"):
        return _JSONL if _has_keys(first, is_cut and file_kind(file) == "JSONL") else None
    return _TEXT if _is_prose(head) else None


def _has_columns(line: str) -> bool:
    try:
        header = [column.strip().lower() for column in next(csv.reader([line]), [])]
    except csv.Error:
        return False
    return columns_in(header) is not None


def _has_keys(line: str, is_cut: bool) -> bool:
    """Whether a line is an object with keys that we read; one that `is_cut` shows its first key."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return is_cut and _FIRST_KEY.match(line) is not None
    if not isinstance(row, dict):
        return False
    return "messages" in row or "text" in row or columns_in(row) is not None


def _is_prose(text: str) -> bool:
    """Whether half of what is not blank are letters."""
    seen = "".join(text.split())
    return seen.isprintable() and 0 < len(seen) <= 2 * sum(map(str.isalpha, seen))
