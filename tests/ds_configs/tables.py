"""Copies of the specification's tables beside the tests."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
SHIPPED = ("event_seg", "language", "abr", "doc_translation", "eeg_text")
"""The families of the specification; another one needs no table."""


def rows(text: str) -> list[list[str]]:
    """The cells of a table, its heads first, without the separator line."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def cells(text: str) -> list[tuple[str, str, str]]:
    """(mode, key, text) of each cell except dashes.

    The columns are the setting in words, its key, and a mode each.
    """
    head, *found = rows(text)
    return [
        (mode, row[1], written)
        for row in found
        for mode, written in zip(head[2:], row[2:], strict=True)
        if written != "–"
    ]
