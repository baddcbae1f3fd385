"""Text files: which ones a path names, and their text in chunks, lines and parts."""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections.abc import Callable, Iterable, Iterator
from io import IncrementalNewlineDecoder
from pathlib import Path
from typing import BinaryIO, Literal, cast

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
JSON, PARQUET, GZIP = ".json", ".parquet", ".gz"
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


CHUNK = 1 << 20
"""Bytes per read."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    # The mark of UTF-32-LE begins with the mark of UTF-16-LE.
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def has_byte_order_mark(head: bytes) -> bool:
    """Whether a file with these first bytes has a byte order mark."""
    return any(head.startswith(mark) for mark, _ in _MARKS)


class TextFile:
    """Text in UTF-8, or in UTF-16 or UTF-32 with a byte order mark; line ends become `\\n`.

    A name that ends in .gz is decompressed.

    Holds one line in memory. Every method reads from disk and raises DataError if the file cannot
    be opened or is not text; all but `chunks` and `lines` also if it is empty.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def chunks(self, size: int = CHUNK) -> Iterator[str]:
        """The text in chunks of about `size` bytes."""
        try:
            with self.open() as file:
                yield from _decoded(file, self.path, size)
        except OSError as error:
            raise unreadable_file(self.path, error) from None
        except (EOFError, zlib.error) as error:
            raise unreadable_file(self.path, OSError(f"damaged gzip data: {error}")) from None

    def open(self) -> BinaryIO:
        """The bytes of the text, decompressed. Raises OSError."""
        if self.path.name.lower().endswith(GZIP):
            return cast(BinaryIO, gzip.open(self.path, "rb"))
        return self.path.open("rb")

    def lines(self) -> Iterator[str]:
        """Lines without line ends; a final line end gives an empty line, as in str.split."""
        buffer: list[str] = []
        for chunk in self.chunks():
            first, *others = chunk.split("\n")
            buffer.append(first)
            if others:
                yield "".join(buffer)
                buffer = [others.pop()]
                yield from others
        yield "".join(buffer)

    def numbered_blocks(self) -> Iterator[tuple[int, list[str]]]:
        """Blocks of lines between blank lines, each with the number of its first line."""
        start = 1
        buffer: list[str] = []
        for number, line in enumerate(self.lines(), start=1):
            if line.strip():
                start = start if buffer else number
                buffer.append(line)
            elif buffer:
                yield start, buffer
                buffer = []
        if buffer:
            yield start, buffer

    def first_line(self) -> str:
        """The first non-blank line."""
        found = next((line for line in self.lines() if line.strip()), None)
        if found is None:
            raise DataError(
                f"'{self.path}' is empty",
                where=f"data.path, {self.path.stat().st_size} bytes",
                allowed="a file with text",
            )
        return found

    def length(self, most: int) -> int:
        """Number of characters in the file, at most `most`."""
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
        # The rest of a character that the previous chunk cut belongs to this chunk.
        left = decoder.getstate()[0]
        try:
            if encoding == "utf-8" and b"\0" in raw:
                at = len(left) + raw.index(b"\0")
                raise UnicodeDecodeError(encoding, left + raw, at, at + 1, "a zero byte")
            text = decoder.decode(raw, final=not raw)
        except UnicodeDecodeError as error:
            line += (left + raw).count(b"\n", 0, error.start) - left.count(b"\n")
            raise _not_text(path, encoding, error, line, start - len(left)) from None
        yield newlines.decode(text, final=not raw)
        if not raw:
            return
        line, start = line + raw.count(b"\n"), start + len(raw)
        raw = file.read(size)


def _not_text(
    path: Path, encoding: str, error: UnicodeDecodeError, line: int, start: int
) -> DataError:
    """Error for bytes that are not text, in a chunk that starts at byte `start`."""
    return DataError(
        f"'{path}' is not {encoding[:6].rstrip('-').upper()}: {error.reason}",
        where=f"{path}:{line}, byte {start + error.start}",
        allowed="UTF-8; UTF-16 or UTF-32 with a byte order mark",
        fix=f"convert it, for example: iconv -f LATIN1 -t UTF-8 '{path}'",
    )


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
