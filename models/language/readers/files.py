"""Files on disk: which ones a path names, and their bytes as text."""

from __future__ import annotations

import codecs
import os
from pathlib import Path

from models.base import DataError
from models.language.readers.suffixes import SUFFIXES

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    # The mark of UTF-32-LE begins with that of UTF-16-LE.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def find(path: Path) -> tuple[list[Path], int]:
    """The files to read under `path`, in the order of their names, and how many were ignored.

    A file is itself, whatever its suffix; a folder gives those of a known suffix, at any depth,
    hidden ones left out. Raises DataError if there is none or one may not be looked at.
    """
    try:
        if not path.exists():
            raise DataError(
                f"data.path '{path}' does not exist",
                where=f"looked for {path.absolute()}",
                legal="a file or folder of text, JSONL or CSV; embedded:python, embedded:commands",
            )
        if not path.is_dir():
            return [path], 0
        files = _walk(path)
    except OSError as error:
        raise _unreadable(path, error) from None
    chosen = sorted((f for f in files if f.suffix.lower() in SUFFIXES), key=lambda f: f.as_posix())
    if not chosen:
        raise DataError(
            f"data.path '{path}' holds no file of a known suffix ({len(files)} others)",
            legal=" ".join(sorted(SUFFIXES)),
            mend="name the file itself: a single file may have any suffix",
        )
    return chosen, len(files) - len(chosen)


def _walk(folder: Path) -> list[Path]:
    def fail(error: OSError) -> None:
        raise error

    files = []
    for root, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(root, name) for name in names if not name.startswith(".")]
    return files


def read_text(path: Path) -> str:
    """The text of a file, line ends as `\\n`: UTF-8, or UTF-16 or UTF-32 as their mark says.

    Raises DataError if the file cannot be opened, is empty, or is no text.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from None
    text = _decode(raw, path)
    if not text.strip():
        raise DataError(
            f"'{path}' is empty", where=f"data.path, {len(raw)} bytes", legal="a file with text"
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _decode(raw: bytes, path: Path) -> str:
    encoding = next((name for mark, name in _MARKS if raw.startswith(mark)), "utf-8")
    try:
        if encoding == "utf-8" and b"\0" in raw:
            at = raw.index(b"\0")
            raise UnicodeDecodeError(encoding, raw, at, at + 1, "a zero byte")
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"'{path}' is no {encoding.removesuffix('-sig').upper()} text: {error.reason}",
            where=f"{path}, line {line}, byte {error.start}",
            legal="UTF-8; or UTF-16, UTF-32 with a byte order mark",
            mend=f"convert it, such as  iconv -f LATIN1 -t UTF-8 '{path}'",
        ) from None


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(
        f"'{error.filename or path}' cannot be read: {error.strerror}",
        where="data.path",
        legal="files and folders that you may read",
    )
