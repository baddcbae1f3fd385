"""Text of a file in chunks and lines; its encoding is its mark's, UTF-8, or named in a note."""

from __future__ import annotations

import codecs
import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from io import IncrementalNewlineDecoder
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, BinaryIO, cast

from gearshift.models.base import DataError
from gearshift.models.common.data_files import check_expansion, unreadable_file

GZIP = ".gz"
_GZIP_HEAD = b"\x1f\x8b"
CHUNK = 1 << 20
"""Bytes per read."""
_DOCUMENTS = {
    b"%PDF-": "pdftotext FILE.pdf",
    b"PK\x03\x04": "pandoc FILE.docx -t plain -o FILE.txt",
    b"{\\rtf": "pandoc FILE.rtf -t plain -o FILE.txt",
    b"\xd0\xcf\x11\xe0": "soffice --convert-to txt FILE.doc",
}
"""How documents and archives begin that are not text, and a program that writes their text."""
_LONGEST_CHARACTER = 4
"""Bytes of a character in UTF-8 and in the encodings of East Asia."""
_WITH_ZEROS = ["utf_16", "utf_16_le", "utf_16_be", "utf_32", "utf_32_le", "utf_32_be"]
MARKS = {
    codecs.BOM_UTF8: "utf-8",
    # The mark of UTF-32-LE begins with the mark of UTF-16-LE.
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


class Unpacked(gzip.GzipFile):
    """The unpacked bytes of a file. `read` raises DataError as `check_expansion`."""

    def read(self, size: int | None = -1) -> bytes:
        raw = super().read(size)
        check_expansion(Path(self.name), self.tell())
        return raw


def parse_json(text: str, pairs: Callable[[Any], Any] | None = None) -> Any:
    """The value in JSON; `pairs` makes its objects. Raises ValueError, JSONDecodeError among them.

    Deep nesting, numbers of thousands of digits and half of a surrogate pair are such errors.
    """
    try:
        value = json.loads(text, object_pairs_hook=pairs)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("too many levels of lists and objects") from None
    return value


def _has_utf8(raw: bytes) -> bool:
    """Whether more than a fifth of the characters beyond ASCII are UTF-8: the text is damaged."""
    text = raw.decode("utf-8", errors="replace")
    invalid = text.count("\ufffd")
    beyond = sum(character > "\x7f" for character in text)
    return 4 * (beyond - invalid) > invalid


class TextFile:
    """Text of a file, packed by gzip or not; line ends are `\\n`.

    Its encoding is that of its byte order mark, or UTF-8; of other text it is assumed of the first
    megabyte that is not ASCII, with a note.
    Holds one line in memory. Every method reads from disk and raises DataError if the file cannot
    be opened or is not text; all but `chunks` and `lines` also if it is empty.
    """

    def __init__(self, path: Path, name: str = "") -> None:
        """`name` names it in messages; that of the path by default."""
        self.path = path
        self.name = name or path.name
        self.note = ""
        """An encoding that was assumed, once the file was read up to where this shows."""

    def chunks(self, size: int = CHUNK) -> Iterator[str]:
        """The text in chunks of about `size` bytes."""
        line = 1
        try:
            with self.open() as file:
                raw = file.read(size)
                self._refuse_document(raw)
                mark = next((mark for mark in MARKS if raw.startswith(mark)), b"")
                encoding = MARKS[mark] if mark else ""
                decoder = codecs.getincrementaldecoder(encoding or "ascii")()
                line_ends = IncrementalNewlineDecoder(None, translate=True)
                raw = raw[len(mark) :]
                while raw:
                    if not encoding and (not raw.isascii() or b"\0" in raw):
                        raw += file.read(_LONGEST_CHARACTER)  # it may begin with the last byte
                        encoding = self._encoding(raw, len(raw) < size)
                        decoder = codecs.getincrementaldecoder(encoding)()
                    text = line_ends.decode(decoder.decode(raw))
                    if "\0" in text and not mark:
                        name = encoding or "utf-8"
                        at = raw.index(b"\0")
                        raise UnicodeDecodeError(name, raw, at, at + 1, "a zero byte")
                    yield text
                    line += raw.count(b"\n")
                    raw = file.read(size)
                yield line_ends.decode(decoder.decode(b"", final=True), final=True)
        except UnicodeDecodeError as error:
            line += error.object.count(b"\n", 0, error.start)
            raise DataError(
                f"'{self.path}' is not {error.encoding.upper()}: {error.reason}",
                where=f"{self.path}:{line}",
                allowed="UTF-8, or UTF-16 or UTF-32 with a byte order mark",
                hint="remove what is damaged:  iconv -c -f UTF-8 -t UTF-8 FILE",
            ) from None
        except (OSError, EOFError, zlib.error) as error:  # the latter of damaged gzip data
            raise unreadable_file(self.path, error) from None

    def _encoding(self, raw: bytes, is_whole: bool) -> str:
        """That of `raw` after ASCII: UTF-8, also if damaged, or what charset-normalizer finds.

        Windows-1252 comes first where it is possible: for French charset-normalizer prefers CP1257.
        """
        try:
            if "\0" not in codecs.utf_8_decode(raw, "strict", is_whole)[0]:
                return "utf-8"
        except UnicodeDecodeError:
            if _has_utf8(raw):
                return "utf-8"
        from charset_normalizer import from_bytes

        if b"\0" in raw:
            matches = from_bytes(raw)
        else:
            # ASCII tells nothing, and much of it makes Cyrillic look like accents of Windows-1252.
            lines = [line for line in raw.splitlines(keepends=True) if not line.isascii()]
            matches = from_bytes(b"".join(lines), cp_exclusion=_WITH_ZEROS)
        best = matches.best()
        if b"\0" in raw and (best is None or "\0" in str(best)):
            return "utf-8"  # not text
        assumed = "cp1252"
        possible = [match.could_be_from_charset for match in matches]
        # Of a few accents in a long text charset-normalizer makes nothing.
        if best is not None and not any(assumed in encodings for encodings in possible):
            assumed = best.encoding
        self.note = f"{assumed}, since it is not UTF-8"
        return assumed

    def _refuse_document(self, raw: bytes) -> None:
        for head, program in _DOCUMENTS.items():
            if raw.startswith(head):
                raise DataError(
                    f"'{self.path}' is a document or an archive, not plain text",
                    where=f"data.path, {self.path}",
                    hint=f"convert it:  {program}",
                )

    def open(self) -> BinaryIO:
        """The bytes of the text, decompressed. Raises OSError."""
        with self.path.open("rb") as file:
            is_packed = file.read(2) == _GZIP_HEAD  # some programs unpack and keep the name
        if is_packed:
            return cast(BinaryIO, Unpacked(self.path, "rb"))
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

    def lines_with_ends(self) -> Iterator[str]:
        """Lines with their line ends, also the last one; none is empty."""
        for line, following in pairwise(chain(self.lines(), [None])):
            if line or following is not None:
                yield f"{line}\n"

    def first_line(self) -> str:
        """The first non-blank line."""
        first = next((line for line in self.lines() if line.strip()), None)
        if first is None:
            raise DataError(
                f"'{self.path}' is empty",
                where="data.path",
                allowed="a file with text",
            )
        return first
