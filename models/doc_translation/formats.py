"""Formats of pages that the doc_translation family reads, and their detection."""

from __future__ import annotations

import re
from pathlib import Path

from models.base import DataError
from models.common.data_files import first_files
from models.common.table import is_table, open_table
from models.common.text_file import GZIP, TextFile, parse_json

DOTA = "a folder in the DoTA layout: imgs/, zh_mmd/ (or another language), split_dataset.json"
PAIRS = (
    "JSONL, CSV, TSV or XLSX with id, en, zh (or other languages), or a folder with one such file: "
    "paragraphs that are rendered as pages"
)
FORMATS = (DOTA, PAIRS)
EMBEDDED = ("embedded:pages", "embedded:cards")


_LANGUAGE = re.compile(r"[a-z]{2}([-_][a-z]{2,8})?", re.IGNORECASE)
"""A code of a language, as a name of a column."""


def recognize(path: Path) -> str | None:
    """Format of a file or folder; None if unknown. Reads the first line only."""
    if path.is_dir():
        parts = ((path / "imgs").is_dir(), (path / "split_dataset.json").is_file())
        return DOTA if any(parts) else PAIRS if len(pairs_files(path)) == 1 else None
    if not path.is_file():
        return None
    try:
        if is_table(path):
            names = [str(name).lower() for name in open_table(path).header]
            languages = [name for name in names if name != "id" and _LANGUAGE.fullmatch(name)]
            return PAIRS if len(languages) > 1 else None
        row = parse_json(next(TextFile(path).chunks()).partition("\n")[0])
    except (DataError, ValueError):
        # The reader reports an invalid first line with its number.
        return PAIRS if may_be_pairs(path) and not is_table(path) else None
    return PAIRS if isinstance(row, dict) and "id" in row else None


def pairs_files(path: Path) -> list[Path]:
    """The file itself, or the files of pairs in a folder, by first lines. Raises DataError."""
    if path.is_file():
        return [path]
    return [file for file in first_files(path) if may_be_pairs(file) and recognize(file) == PAIRS]


def may_be_pairs(path: Path) -> bool:
    """Whether a file has the name of a file of pairs."""
    return is_table(path) or path.name.lower().removesuffix(GZIP).endswith((".jsonl", ".ndjson"))
