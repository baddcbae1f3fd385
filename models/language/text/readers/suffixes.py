"""The suffixes of files with text, by how they are read."""

from __future__ import annotations

from pathlib import Path

TEXT = frozenset({
    ".txt", ".text", ".md", ".rst", ".tex", ".py", ".pyi", ".c", ".h", ".cc", ".cpp", ".hpp",
    ".cu", ".java", ".js", ".ts", ".go", ".rs", ".rb", ".sh", ".r", ".jl", ".lua", ".sql",
    ".html", ".xml", ".css", ".toml", ".yaml", ".yml",
})  # fmt: skip
JSONL = frozenset({".jsonl", ".ndjson"})
CSV = frozenset({".csv"})
SUFFIXES = TEXT | JSONL | CSV


def kind(file: Path) -> str:
    """How a file is read: as CSV, JSONL or text."""
    suffix = file.suffix.lower()
    return "CSV" if suffix in CSV else "JSONL" if suffix in JSONL else "text"
