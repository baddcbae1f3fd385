"""The suffixes of files with text, by how they are read."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from io import IncrementalNewlineDecoder
from pathlib import Path
from typing import BinaryIO

from models.base import DataError
from models.common import data_files
from models.common.data_files import unreadable_file

TEXT = frozenset({
    ".txt", ".text", ".md", ".rst", ".tex", ".py", ".pyi", ".c", ".h", ".cc", ".cpp", ".hpp",
    ".cu", ".java", ".js", ".ts", ".go", ".rs", ".rb", ".sh", ".r", ".jl", ".lua", ".sql",
    ".html", ".xml", ".css", ".toml", ".yaml", ".yml",
})  # fmt: skip
JSONL = frozenset({".jsonl", ".ndjson"})
CSV = frozenset({".csv"})
SUFFIXES = TEXT | JSONL | CSV
FORMATS = (
    "CSV with input,output or prompt,response or user,assistant",
    "JSONL with the same fields, with messages, or with text",
    "plain text, documentation and source code",
)
"""Formats of the family, as `list` and error messages name them."""


def file_kind(file: Path) -> str:
    """How a file is read: as CSV, JSONL or text."""
    suffix = file.suffix.lower()
    return "CSV" if suffix in CSV else "JSONL" if suffix in JSONL else "text"


def find_files(path: Path) -> tuple[list[Path], int]:
    """The files to read under `path`, in the order of their names, and how many were ignored.

    A file is itself, whatever its suffix; a folder gives those of a known suffix, at any depth,
    hidden ones left out. Raises DataError if there is none or one may not be looked at.
    """
    allowed = "a file or folder of text, JSONL or CSV; embedded:python, embedded:commands"
    if not data_files.existing_path(str(path), allowed).is_dir():
        if not path.is_file():
            raise DataError(
                f"data.path '{path}' is no file that can be read more than once",
                where=f"looked for {path.absolute()}",
                allowed="a file on disk, not a pipe or a device",
            )
        return [path], 0
    files = data_files.files(path)
    chosen = [file for file in files if file.suffix.lower() in SUFFIXES]
    if not chosen:
        raise DataError(
            f"data.path '{path}' holds no file of a known suffix ({len(files)} others)",
            allowed=" ".join(sorted(SUFFIXES)),
            fix="name the file itself: a single file may have any suffix",
        )
    return chosen, len(files) - len(chosen)


CHUNK = 1 << 20
"""Bytes that are read together."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    # The mark of UTF-32-LE begins with that of UTF-16-LE.
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def has_mark(head: bytes) -> bool:
    """Whether a file that begins so tells its encoding by a mark."""
    return any(head.startswith(mark) for mark, _ in _MARKS)


class TextFile:
    """UTF-8, or UTF-16 or UTF-32 as a mark says; line ends are `\\n`.

    What is held at once is a line. All methods read from disk and raise DataError if the file
    cannot be opened, is no text, or, but for `chunks` and `lines`, is empty.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def chunks(self, size: int = CHUNK) -> Iterator[str]:
        """The text in pieces of any length, of about `size` bytes."""
        try:
            with self.path.open("rb") as file:
                yield from _decoded(file, self.path, size)
        except OSError as error:
            raise unreadable_file(self.path, error) from None

    def lines(self) -> Iterator[str]:
        """The lines without their ends; after a last line end an empty one, as str.split gives."""
        held: list[str] = []
        for chunk in self.chunks():
            first, *others = chunk.split("\n")
            held.append(first)
            if others:
                yield "".join(held)
                held = [others.pop()]
                yield from others
        yield "".join(held)

    def numbered_blocks(self) -> Iterator[tuple[int, list[str]]]:
        """Lines without a blank one between them, after the number of the first."""
        start = 1
        held: list[str] = []
        for number, line in enumerate(self.lines(), start=1):
            if line.strip():
                start = start if held else number
                held.append(line)
            elif held:
                yield start, held
                held = []
        if held:
            yield start, held

    def first_line(self) -> str:
        """The first line that is not blank."""
        found = next((line for line in self.lines() if line.strip()), None)
        if found is None:
            raise DataError(
                f"'{self.path}' is empty",
                where=f"data.path, {self.path.stat().st_size} bytes",
                allowed="a file with text",
            )
        return found

    def length(self, most: int) -> int:
        """Characters in the file, as far as they are not more than `most`."""
        total = 0
        for chunk in self.chunks():
            total += len(chunk)
            if total >= most:
                return most
        return total


def _decoded(file: BinaryIO, path: Path, size: int) -> Iterator[str]:
    raw = file.read(size)
    mark, encoding = next((m for m in _MARKS if raw.startswith(m[0])), (b"", "utf-8"))
    raw, start = raw[len(mark) :], len(mark)
    decoder = codecs.getincrementaldecoder(encoding)()
    newlines = IncrementalNewlineDecoder(None, translate=True)
    line = 1
    while True:
        # What is left of a character that the last chunk cut belongs to this one.
        left = decoder.getstate()[0]
        try:
            if encoding == "utf-8" and b"\0" in raw:
                at = len(left) + raw.index(b"\0")
                raise UnicodeDecodeError(encoding, left + raw, at, at + 1, "a zero byte")
            text = decoder.decode(raw, final=not raw)
        except UnicodeDecodeError as error:
            line += (left + raw).count(b"\n", 0, error.start) - left.count(b"\n")
            raise _no_text(path, encoding, error, line, start - len(left)) from None
        yield newlines.decode(text, final=not raw)
        if not raw:
            return
        line, start = line + raw.count(b"\n"), start + len(raw)
        raw = file.read(size)


def _no_text(
    path: Path, encoding: str, error: UnicodeDecodeError, line: int, start: int
) -> DataError:
    """What to tell of bytes that are no text, in a piece that begins at byte `start`."""
    return DataError(
        f"'{path}' is no {encoding[:6].rstrip('-').upper()} text: {error.reason}",
        where=f"{path}:{line}, byte {start + error.start}",
        allowed="UTF-8; or UTF-16, UTF-32 with a byte order mark",
        fix=f"convert it, such as  iconv -f LATIN1 -t UTF-8 '{path}'",
    )


PART = 1 << 18
"""Characters of a part: the tokenizers library takes some hundred bytes for each while it works."""

LONGEST = 4 * PART
"""Characters after which a part ends at any line, be the cut a good one or not."""


def split_pieces(pieces: Iterable[str]) -> Iterator[str]:
    """`pieces` joined, in parts of about PART characters; a shorter text is one part.

    A cut falls between two lines that end and begin with a visible character. There neither the
    words of a byte-level tokenizer nor case nor blanks reach across: the parts give the tokens and
    the fingerprint of the whole. `pieces` begin with their line ends: a cut falls before one.
    """
    held: list[str] = []
    size = 0
    for piece in pieces:
        if size >= PART and (_is_seam(held[-1], piece) or size >= LONGEST):
            yield "".join(held)
            held, size = [], 0
        held.append(piece)
        size += len(piece)
    if held:
        yield "".join(held)


def split_text(text: str) -> Iterator[str]:
    """`text` in parts."""
    if len(text) < PART:
        yield text
    else:
        yield from split_pieces(with_line_ends(text.split("\n")))


def with_line_ends(lines: Iterable[str]) -> Iterator[str]:
    """Lines, each but the first after a line end."""
    end = ""
    for line in lines:
        yield end + line
        end = "\n"


def _is_seam(before: str, after: str) -> bool:
    is_visible = [c != "" and not c.isspace() for c in (before[-1:], after[1:2])]
    return all(is_visible) and after[0] == "\n"
