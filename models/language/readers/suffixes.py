"""The suffixes of files with text, by how they are read."""

from __future__ import annotations

TEXT = frozenset({
    ".txt", ".text", ".md", ".rst", ".tex", ".py", ".pyi", ".c", ".h", ".cc", ".cpp", ".hpp",
    ".cu", ".java", ".js", ".ts", ".go", ".rs", ".rb", ".sh", ".r", ".jl", ".lua", ".sql",
    ".html", ".xml", ".css", ".toml", ".yaml", ".yml",
})  # fmt: skip
JSONL = frozenset({".jsonl", ".ndjson"})
CSV = frozenset({".csv"})
SUFFIXES = TEXT | JSONL | CSV
