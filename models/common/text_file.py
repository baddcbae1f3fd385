"""Text of a file in chunks and lines; its encoding is that of its mark, UTF-8, or named in a note."""

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

from models.base import DataError
from models.common.data_files import check_expansion, unreadable_file

GZIP = ".gz"
_GZIP_HEAD = b"\x1f\x8b"
CHUNK = 1 << 20
"""Bytes per read."""
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
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair (\\ud800 to \\udfff) is not a character") from None
    return value


def _has_utf8(raw: bytes) -> bool:
    """Whether more than a fifth of the characters beyond ASCII are UTF-8: the text is damaged."""
    beyond = [c for c in raw.decode("utf-8", errors="surrogateescape") if c > "\x7f"]
    invalid = sum("\udc80" <= c <= "\udcff" for c in beyond)
    return 4 * (len(beyond) - invalid) > invalid


class TextFile:
    """Text of a file, packed by gzip or not; line ends are `\\n`.

    Its encoding is that of its byte order mark, or UTF-8; of other text it is assumed of the first
    megabyte, with a note.
    Holds one line in memory. Every method reads from disk and raises DataError if the file cannot
    be opened or is not text; all but `chunks` and `lines` also if it is empty.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.note = ""
        """An encoding that was assumed, once the file was read up to where this shows."""

    def chunks(self, size: int = CHUNK) -> Iterator[str]:
        """The text in chunks of about `size` bytes."""
        line = 1
        try:
            with self.open() as file:
                raw = file.read(size)
                mark = next((mark for mark in MARKS if raw.startswith(mark)), b"")
                encoding = MARKS[mark] if mark else self._encoding(raw, len(raw) < size)
                bytes_decoder: Any = codecs.getincrementaldecoder(encoding)()
                decoder, raw = IncrementalNewlineDecoder(bytes_decoder, translate=True), raw[len(mark) :]
                while raw:
                    text = decoder.decode(raw)
                    if "\0" in text and not mark:
                        raise UnicodeDecodeError(encoding, raw, raw.index(b"\0"), len(raw), "a zero byte")
                    yield text
                    line += raw.count(b"\n")
                    raw = file.read(size)
                yield decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            line += error.object.count(b"\n", 0, error.start)
            raise DataError(
                f"'{self.path}' is not {error.encoding.upper()}: {error.reason}",
                where=f"{self.path}:{line}",
                allowed="UTF-8, or UTF-16 or UTF-32 with a byte order mark",
                fix="convert it, for example  iconv -f WINDOWS-1251 -t UTF-8",
            ) from None
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(
                f"'{self.path}' cannot be read: damaged gzip data: {error}",
                where="data.path",
                allowed="complete gzip data",
                fix="fetch it again",
            ) from None
        except OSError as error:
            raise unreadable_file(self.path, error) from None

    def _encoding(self, raw: bytes, is_whole: bool) -> str:
        """That of the first bytes: UTF-8, also where it is damaged, or what charset-normalizer finds.

        Windows-1252 comes first where it is possible: for French charset-normalizer prefers CP1257.
        """
        try:
            if "\0" not in codecs.utf_8_decode(raw, "strict", is_whole)[0]:
                return "utf-8"
        except UnicodeDecodeError as error:
            is_cut = error.reason == "unexpected end of data" and error.end - error.start > 1
            if is_cut or _has_utf8(raw):
                return "utf-8"
        from charset_normalizer import from_bytes

        matches = from_bytes(raw)
        best, assumed = matches.best(), "cp1252"
        if not any(assumed in match.could_be_from_charset for match in matches):
            if best is None or "\0" in str(best):
                return "utf-8"  # not text
            assumed = best.encoding
        self.note = f"{assumed}, since it is not UTF-8"
        return assumed

    def open(self) -> BinaryIO:
        """The bytes of the text, decompressed. Raises OSError."""
        with self.path.open("rb") as file:
            is_packed = file.read(2) == _GZIP_HEAD  # some programs unpack and keep the name
        return cast(BinaryIO, Unpacked(self.path, "rb")) if is_packed else self.path.open("rb")

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
                where=f"data.path, {self.path.stat().st_size} bytes",
                allowed="a file with text",
            )
        return first
