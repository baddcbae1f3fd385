"""The forms of text that this family reads, and how one is recognised."""

from __future__ import annotations

from pathlib import Path

from models.language.readers.suffixes import CSV, JSONL, SUFFIXES

FORMATS = (
    "CSV with input,output or prompt,response",
    "JSONL with the same fields, with messages, or with text",
    "plain text, documentation and source code",
)
EMBEDDED = ("embedded:python", "embedded:commands")


def recognise(path: Path) -> str | None:
    """The form of a file, or of the files of a folder; None where none of them is known.

    Reads the disk, names alone.
    """
    files = [path] if not path.is_dir() else [p for p in path.rglob("*") if p.is_file()]
    suffixes = {file.suffix.lower() for file in files} & SUFFIXES
    if not suffixes:
        return None
    if suffixes <= CSV:
        return FORMATS[0]
    return FORMATS[1] if suffixes <= JSONL else FORMATS[2]
