"""Text of a file in chunks and lines: its encoding is found from its bytes."""

from __future__ import annotations

import codecs
import gzip
import json
import re
import shlex
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import IncrementalNewlineDecoder
from pathlib import Path
from typing import Any, BinaryIO, cast

from models.base import DataError
from models.common.data_files import check_expansion, unreadable_file

GZIP = ".gz"
_GZIP_HEAD = b"\x1f\x8b"
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
_NAMES = {
    "utf-8": "UTF-8",
    "utf-16-le": "UTF-16LE",
    "utf-16-be": "UTF-16BE",
    "utf-32-le": "UTF-32LE",
    "utf-32-be": "UTF-32BE",
}
"""Encodings by the names that iconv and the standard give them."""
_WESTERN = "cp1252"
_NOT_WESTERN = re.compile(rb"[\x81\x8d\x8f\x90\x9d\xff]")
"""Bytes without a character in Windows-1252, and \xff, which is in damaged data, not in words."""
_HIGH = re.compile(rb"[\x80-\xff]+")
_LONGEST_RUN = 3
"""Bytes above 127 in a row that a western text may have: it has mostly single ones."""
_MOST_IN_RUNS = 0.2
"""Share of bytes above 127 in longer rows, from which a text is not western."""


_BINARY = {
    b"PK\x03\x04": ("a ZIP archive or a workbook", "unpack it; a workbook needs the suffix .xlsx"),
    b"\xd0\xcf\x11\xe0": ("a workbook of an old kind", "save it as .xlsx or as CSV"),
    b"PAR1": ("Parquet", "give it the suffix .parquet"),
    b"\x89HDF": ("HDF5", "export it as a table"),
    b"\x28\xb5\x2f\xfd": ("packed by zstd", "unpack it with zstd -d"),
    b"\xfd7zXZ": ("packed by xz", "unpack it with xz -d"),
    b"BZh9": ("packed by bzip2", "unpack it with bzip2 -d"),
    b"%PDF-": ("PDF", "export its text"),
}
"""What a file is by its first bytes, and what to do: no text begins like this."""


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
        check_characters(value, text)
    except RecursionError:
        raise ValueError("too many levels of lists and objects") from None
    return value


def check_characters(value: object, text: str) -> None:
    """Raises ValueError if half of a surrogate pair is in `value`, parsed from `text`."""
    try:
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        problem = "half of a surrogate pair (\\ud800 to \\udfff) is not a character"
        raise ValueError(problem) from None


def has_byte_order_mark(head: bytes) -> bool:
    """Whether a file with these first bytes has a byte order mark."""
    return any(head.startswith(mark) for mark, _ in _MARKS)


def wide_without_mark(head: bytes) -> str | None:
    """The encoding of a file with these first bytes: UTF-16 or UTF-32 without a byte order mark.

    Nearly no other bytes are code points of UTF-32. In UTF-16 every letter, digit, comma and line
    end of ASCII has a zero byte, always the same one of its two.
    """
    even = head[: len(head) // 2 * 2]
    if b"\0" not in even or has_byte_order_mark(head):
        return None
    for encoding in ("utf-32-le", "utf-32-be"):
        with suppress(UnicodeDecodeError):
            if "\0" not in head[: len(head) // 4 * 4].decode(encoding):
                return encoding
    zeros = even[1::2].count(0), even[0::2].count(0)
    encoding = "utf-16-le" if zeros[0] > zeros[1] else "utf-16-be"
    # A text in ASCII alone has a zero in every pair; a Chinese one at least in its line ends.
    needed = 0.8 if even.isascii() else 0.01
    if max(zeros) < max(1, needed * len(even) / 2) or min(zeros) > max(zeros) / 4:
        return None
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(even)
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else encoding


class TextFile:
    """Text in UTF-8, UTF-16, UTF-32 or Windows-1252, packed by gzip or not; line ends are `\\n`.

    Gzip data is decompressed. Windows-1252, which contains Latin-1, is assumed of text that is not
    UTF-8 and has letters of western languages.

    Holds one line in memory. Every method reads from disk and raises DataError if the file cannot
    be opened or is not text; all but `chunks` and `lines` also if it is empty.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.note = ""
        """An encoding that was assumed, once the file was read up to where this shows."""
        self.encoding: str | None = None
        """As `note`; None: nothing was read."""

    def chunks(self, size: int = CHUNK) -> Iterator[str]:
        """The text in chunks of about `size` bytes."""
        try:
            with self.open() as file:
                decoder = _Decoder(self.path)
                newlines = IncrementalNewlineDecoder(None, translate=True)
                raw = file.read(size)
                while True:
                    yield newlines.decode(decoder.decode(raw), final=not raw)
                    self.note, self.encoding = decoder.note, decoder.encoding
                    if not raw:
                        return
                    raw = file.read(size)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(
                f"'{self.path}' cannot be read: damaged gzip data: {error}",
                where="data.path",
                allowed="complete gzip data",
                fix="fetch it again",
            ) from None
        except OSError as error:
            raise unreadable_file(self.path, error) from None

    def open(self) -> BinaryIO:
        """The bytes of the text, decompressed. Raises OSError."""
        if self.is_packed():
            return cast(BinaryIO, Unpacked(self.path, "rb"))
        return self.path.open("rb")

    def is_packed(self) -> bool:
        """Whether it is gzip data, by its content: some programs unpack and keep the name.

        Raises OSError.
        """
        with self.path.open("rb") as file:
            return file.read(2) == _GZIP_HEAD

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
        """Lines with their line ends; the last one may have none, and none is empty."""
        lines = self.lines()
        last = next(lines)
        for line in lines:
            yield f"{last}\n"
            last = line
        if last:
            yield last

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
        first = next((line for line in self.lines() if line.strip()), None)
        if first is None:
            raise DataError(
                f"'{self.path}' is empty",
                where=f"data.path, {self.path.stat().st_size} bytes",
                allowed="a file with text",
            )
        return first

    def length(self, limit: int) -> int:
        """Number of characters in the file, at most `limit`."""
        total = 0
        for chunk in self.chunks():
            total += len(chunk)
            if total >= limit:
                return limit
        return total


class _Decoder:
    """Decodes the bytes of one file in order; line and byte of an error are those in the file."""

    def __init__(self, path: Path) -> None:
        self.note = ""
        self._path = path
        self.encoding: str | None = None
        """None: nothing was read."""
        self._is_ascii = True
        """Whether all bytes so far are ASCII, so that the encoding may still be a western one."""
        self._line, self._start = 1, 0
        """Line and byte at which the next bytes begin."""

    def decode(self, raw: bytes) -> str:
        """The text of the next bytes; none: the file ends. Raises DataError."""
        if self.encoding is None:
            self._start = self._begin(raw)
            raw = raw[self._start :]
        # The rest of a character that the previous bytes cut belongs to these.
        left = self._decoder.getstate()[0]
        whole = left + raw
        try:
            text = self._decoded(raw, whole)
        except UnicodeDecodeError as error:
            line = self._line + whole.count(b"\n", 0, error.start)
            raise self._error(error, line, self._start - len(left), whole) from None
        self._is_ascii = self._is_ascii and text.isascii()
        self._line += raw.count(b"\n")
        self._start += len(raw)
        return text

    def _begin(self, raw: bytes) -> int:
        """Find the encoding by the first bytes; the length of the byte order mark."""
        for head, (kind, fix) in _BINARY.items():
            if raw.startswith(head):
                raise DataError(f"'{self._path}' is {kind}, not text", where="data.path", fix=fix)
        mark, encoding = next((m for m in _MARKS if raw.startswith(m[0])), (b"", "utf-8"))
        length = len(mark)
        while mark and raw.startswith(mark, length):
            length += len(mark)  # some programs write a second one
        if not mark and (wide := wide_without_mark(raw)):
            encoding = wide
            self.note = f"{_NAMES[encoding]} without a byte order mark"
        self._use(encoding)
        # A file with a byte order mark is not western.
        self._is_ascii = not mark
        return length

    def _use(self, encoding: str) -> None:
        self.encoding = encoding
        self._decoder = codecs.getincrementaldecoder(encoding)()

    def _decoded(self, raw: bytes, whole: bytes) -> str:
        if self.encoding in ("utf-8", _WESTERN) and b"\0" in raw:
            at = len(whole) - len(raw) + raw.index(b"\0")
            raise UnicodeDecodeError("utf-8", whole, at, at + 1, "a zero byte")
        if self.encoding == _WESTERN and not _is_western(whole):
            whole.decode("utf-8")  # raises the error with its place
        try:
            return self._decoder.decode(raw, final=not raw)
        except UnicodeDecodeError as error:
            is_cut = error.reason == "unexpected end of data" and error.end - error.start > 1
            if self.encoding != "utf-8" or not self._is_ascii or is_cut or not _is_western(whole):
                raise
            self.note = "Windows-1252 (Latin-1), since it is not UTF-8"
            self._use(_WESTERN)
            return self._decoder.decode(whole, final=not raw)

    def _error(self, error: UnicodeDecodeError, line: int, start: int, raw: bytes) -> DataError:
        """Error for bytes that are not text, in `raw` bytes that start at byte `start`.

        Its fix replaces the file by what a command makes of it; NAME.old stays.
        """
        encoding = _NAMES.get(self.encoding or "", "UTF-8")
        words, command = "remove them, for example", f"iconv -c -f {encoding} -t UTF-8"
        if error.reason == "a zero byte":
            command = "tr -d '\\000'"
        elif self.encoding == "utf-8" and self._is_ascii and not _has_utf8(raw):
            # Nothing is UTF-8, and it is not western: only a person knows its encoding.
            words = "convert it, for example from Windows-1251"
            command = "iconv -f WINDOWS-1251 -t UTF-8"
        if self._path.name.lower().endswith(GZIP):
            command = f"gzip -dc | {command} | gzip"
        name, old = shlex.quote(str(self._path)), shlex.quote(f"{self._path}.old")
        return DataError(
            f"'{self._path}' is not {encoding}: {error.reason}",
            where=f"{self._path}:{line}, byte {start + error.start}",
            allowed="UTF-8, UTF-16, UTF-32, Windows-1252 (Latin-1)",
            fix=f"{words}:  mv {name} {old} && {command} < {old} > {name}",
        )


def _is_western(raw: bytes) -> bool:
    """Whether bytes that are not UTF-8 are a text of a western language in Windows-1252."""
    if _NOT_WESTERN.search(raw):
        return False
    runs = [len(run) for run in _HIGH.findall(raw)]
    in_runs = sum(length for length in runs if length > _LONGEST_RUN)
    return in_runs <= _MOST_IN_RUNS * sum(runs) and not _has_utf8(raw)


def _has_utf8(raw: bytes) -> bool:
    """Whether more than a fifth of the characters beyond ASCII are UTF-8: the text is damaged."""
    text = raw.decode("utf-8", errors="surrogateescape")
    beyond = [c for c in text if c > "\x7f"]
    invalid = sum("\udc80" <= c <= "\udcff" for c in beyond)
    return 4 * (len(beyond) - invalid) > invalid
