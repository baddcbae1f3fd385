"""Files of text: which ones a path names, their kinds, and the parts of a long text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal

from models.base import DataError
from models.common import data_files
from models.common.text_file import GZIP, TextFile

TEXT = frozenset({
    ".txt", ".text", ".md", ".rst", ".tex", ".py", ".pyi", ".c", ".h", ".cc", ".cpp", ".hpp",
    ".cu", ".java", ".js", ".ts", ".go", ".rs", ".rb", ".sh", ".r", ".jl", ".lua", ".sql",
    ".html", ".xml", ".css", ".toml", ".yaml", ".yml",
})  # fmt: skip
JSONL = frozenset({".jsonl", ".ndjson"})
CSV = frozenset({".csv", ".tsv"})
JSON, PARQUET = ".json", ".parquet"
SUFFIXES = TEXT | JSONL | CSV | {JSON, PARQUET}
FORMATS = (
    "CSV with columns for a request and an answer, or with text",
    "JSONL with keys for a request and an answer, with messages, or with text",
    "a JSON array of such objects",
    "Parquet with such columns",
    "plain text, documentation and source code",
)
"""Formats of the family, as `list` and error messages name them."""
Kind = Literal["CSV", "JSONL", "JSON", "Parquet", "text"]


def suffix_of(file: Path) -> str:
    """The suffix in lower case, without that of gzip."""
    return Path(file.name.lower().removesuffix(GZIP)).suffix


def file_kind(file: Path) -> Kind:
    """Kind of a file by its suffix."""
    suffix = suffix_of(file)
    if suffix in CSV:
        return "CSV"
    if suffix in JSONL:
        return "JSONL"
    return "JSON" if suffix == JSON else "Parquet" if suffix == PARQUET else "text"


def find_files(path: Path, has_rows: Callable[[TextFile], bool]) -> tuple[list[Path], int]:
    """Files to read under `path`, sorted, and the number of ignored files.

    A single file may have any suffix; a folder gives its visible files of a known suffix at any
    depth, except JSON files for which `has_rows` is False. Raises DataError if there is none or a
    folder is not readable.
    """
    allowed = "a file or folder of text, JSON, CSV or Parquet; embedded:python, embedded:commands"
    if not data_files.existing_path(str(path), allowed).is_dir():
        return [path], 0
    files = data_files.files(path)
    known = [file for file in files if suffix_of(file) in SUFFIXES]
    chosen = [file for file in known if file_kind(file) != "JSON" or has_rows(TextFile(file))]
    if not chosen:
        raise DataError(
            f"data.path '{path}' has no file with a known suffix ({len(files)} other files)",
            allowed=" ".join(sorted(SUFFIXES)),
            fix="give the path of one file: a single file may have any suffix",
        )
    return chosen, len(files) - len(chosen)


PART = 1 << 18
"""Characters of a part: the tokenizers library takes some hundred bytes per character."""

LONGEST = 4 * PART
"""Characters after which a part ends at the next line in any case."""


def split_pieces(pieces: Iterable[str]) -> Iterator[str]:
    """Join `pieces` into parts of about PART characters; a shorter text is one part.

    A cut lies between two lines that end and begin with a visible character. No token, case rule or
    whitespace run of a byte-level tokenizer crosses such a cut, so the parts give the tokens and
    the fingerprint of the whole. `pieces` begin with their line ends; cuts lie before a piece.
    """
    buffer: list[str] = []
    size = 0
    for piece in pieces:
        if size >= PART and (_is_seam(buffer[-1], piece) or size >= LONGEST):
            yield "".join(buffer)
            buffer, size = [], 0
        buffer.append(piece)
        size += len(piece)
    if buffer:
        yield "".join(buffer)


def split_text(text: str) -> Iterator[str]:
    """Split `text` into parts; see split_pieces."""
    if len(text) < PART:
        yield text
    else:
        yield from split_pieces(with_line_ends(text.split("\n")))


def with_line_ends(lines: Iterable[str]) -> Iterator[str]:
    """Lines, each but the first preceded by a line end."""
    end = ""
    for line in lines:
        yield end + line
        end = "\n"


def _is_seam(before: str, after: str) -> bool:
    is_visible = [c != "" and not c.isspace() for c in (before[-1:], after[1:2])]
    return all(is_visible) and after[0] == "\n"
