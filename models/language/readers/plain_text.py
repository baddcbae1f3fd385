"""Files of text, their kinds, and the documents of plain text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby, islice
from pathlib import Path
from typing import Literal

from models.base import DataError
from models.common import data_files
from models.common.text_file import GZIP, TextFile
from models.language.readers.records import Document

TEXT = frozenset({
    ".txt", ".text", ".md", ".rst", ".tex", ".py", ".pyi", ".c", ".h", ".cc", ".cpp", ".hpp",
    ".cu", ".java", ".js", ".ts", ".go", ".rs", ".rb", ".sh", ".r", ".jl", ".lua", ".sql",
    ".html", ".xml", ".css", ".toml", ".yaml", ".yml",
})  # fmt: skip
FORMATS = (
    "CSV with columns for a request and an answer, or with text",
    "JSONL with keys for a request and an answer, with messages, or with text",
    "a JSON array of such objects",
    "Parquet with such columns",
    "plain text, documentation and source code",
)
"""Formats of the family, as `list` and error messages name them."""
Kind = Literal["CSV", "JSONL", "JSON", "Parquet", "text"]
_KINDS: Mapping[str, Kind] = {
    ".csv": "CSV", ".tsv": "CSV", ".jsonl": "JSONL", ".ndjson": "JSONL",
    ".json": "JSON", ".parquet": "Parquet",
}  # fmt: skip
SUFFIXES = TEXT | _KINDS.keys()


def suffix_of(file: Path) -> str:
    """The suffix in lower case, without that of gzip."""
    return Path(file.name.lower().removesuffix(GZIP)).suffix


def file_kind(file: Path) -> Kind:
    """Kind of a file by its suffix."""
    return _KINDS.get(suffix_of(file), "text")


def is_array(file: Path) -> bool:
    """Whether a file begins as a JSON array. Reads its first part; False if it cannot be read."""
    try:
        return next(TextFile(file).chunks()).lstrip().startswith("[")
    except DataError:
        return False


def find_files(path: Path) -> tuple[list[Path], int]:
    """Files to read under `path`, sorted, and the number of ignored files.

    A single file may have any suffix; a folder gives its visible files of a known suffix at any
    depth, of JSON the arrays. Raises DataError if there is none or a folder is not readable.
    """
    allowed = "a file or folder of text, JSON, CSV or Parquet; embedded:python, embedded:commands"
    if not data_files.existing_path(str(path), allowed).is_dir():
        return [path], 0
    files = data_files.files(path)
    known = [file for file in files if suffix_of(file) in SUFFIXES]
    chosen = [file for file in known if file_kind(file) != "JSON" or is_array(file)]
    if not chosen:
        raise DataError(
            f"data.path '{path}' has no file with a known suffix ({len(files)} other files)",
            allowed=" ".join(sorted(SUFFIXES)),
            fix="give the path of one file: a single file may have any suffix",
        )
    return chosen, len(files) - len(chosen)


PART = 1 << 18
"""Characters after which a text is cut: the tokenizers library takes some hundred bytes for each."""


def split_text(lines: Iterable[str]) -> Iterator[str]:
    """The text of `lines`, cut at line ends into texts of about PART characters."""
    buffer, size = list[str](), 0
    for line in lines:
        buffer.append(line)
        size += len(line) + 1
        if size >= PART:
            yield "\n".join(buffer)
            buffer, size = [], 0
    if any(line.strip() for line in buffer):
        yield "\n".join(buffer)


PIECE = 4096
"""Minimum number of characters of a document made of blocks, if the file is long enough."""
PIECES = 50
"""Approximate number of documents of a shorter file."""


def read_whole(file: TextFile, name: str) -> Iterator[Document]:
    """Read the file as one document; a long one comes in parts, of one group."""
    file.first_line()  # raises DataError if the file is empty
    yield from (Document(name, text) for text in split_text(file.lines()))


def read_documents(file: TextFile, name: str) -> Iterator[Document]:
    """Read the documents of a single file: neighboring blocks, joined up to PIECE characters.

    Blocks stay whole, up to PART. In a text without blank lines every line is a block.
    """
    file.first_line()  # raises DataError if the file is empty
    minimum = min(PIECE, file.length(PIECE * PIECES) // PIECES)
    blocks = (True for is_text, _ in groupby(file.lines(), lambda line: line.strip() != "") if is_text)
    by_line = len(list(islice(blocks, 2))) == 1
    number, size, buffer = 0, 0, list[str]()
    for line in file.lines():
        in_block = bool(buffer and buffer[-1])
        if line.strip():
            buffer.append(line)
            size += len(line) + (in_block and not by_line)
            is_full = size >= (minimum if by_line else PART)
        else:
            buffer += [""] if in_block else []
            is_full = in_block and size >= minimum
        if is_full:
            yield Document(f"{name}#{number:06}", "\n".join(buffer).rstrip("\n"))
            number, size, buffer = number + 1, 0, []
    if buffer:
        yield Document(f"{name}#{number:06}", "\n".join(buffer).rstrip("\n"))
