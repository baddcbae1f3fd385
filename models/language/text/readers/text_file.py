"""The text of a file, read piece by piece and from the start at each reading."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from io import IncrementalNewlineDecoder
from pathlib import Path
from typing import BinaryIO

from models.base import DataError
from models.common.paths import unreadable

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
            raise unreadable(self.path, error) from None

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
        where=f"{path}, line {line}, byte {start + error.start}",
        allowed="UTF-8; or UTF-16, UTF-32 with a byte order mark",
        fix=f"convert it, such as  iconv -f LATIN1 -t UTF-8 '{path}'",
    )
