"""The format of pages that the doc_translation family reads, and its detection."""

from __future__ import annotations

from pathlib import Path

DOTA = "a folder in the DoTA layout: imgs/, zh_mmd/ (or another language), split_dataset.json"
FORMATS = (DOTA,)
EMBEDDED = ("embedded:pages", "embedded:cards")


def recognize(path: Path) -> str | None:
    """The format of a folder; None if unknown."""
    return DOTA if (path / "imgs").is_dir() or (path / "split_dataset.json").is_file() else None
