"""Formats of pages that the doc_translation family reads, and their detection."""

from __future__ import annotations

import json
from pathlib import Path

DOTA = "a folder in the DoTA layout: imgs/, zh_mmd/ (or another language), split_dataset.json"
PAIRS = "JSONL with id, en, zh (or other languages): paragraphs that are rendered as pages"
FORMATS = (DOTA, PAIRS)
EMBEDDED = ("embedded:pages", "embedded:cards")


def recognize(path: Path) -> str | None:
    """Format of a file or folder; None if unknown. Reads the first line only."""
    if path.is_dir():
        parts = ((path / "imgs").is_dir(), (path / "split_dataset.json").is_file())
        return DOTA if any(parts) else None
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            row = json.loads(file.readline(1 << 20).decode("utf-8-sig"))
    except (OSError, ValueError):
        # The reader reports an invalid first line with its number.
        return PAIRS if path.suffix.lower() in (".jsonl", ".ndjson") else None
    return PAIRS if isinstance(row, dict) and "id" in row else None
