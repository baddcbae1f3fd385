"""Unpacking of untrusted archives: nothing is written outside the folder or above the limits."""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

from launcher.config.feature_checks import Kind

if not hasattr(tarfile, "data_filter"):  # before Python 3.10.12 and 3.11.4
    from backports import tarfile  # type: ignore[no-redef]

MAX_MEMBERS = 2_000_000
_MAX_READ_BYTES, _PIECE_BYTES = 1 << 26, 1 << 20
"""At once; tarfile reads a header into memory as a whole."""
_UNSAFE = re.compile(r"^/|^[A-Za-z]:|(^|/)\.\.(/|$)|[\\\x00-\x1f\x7f]")
"""An absolute path, a drive, a way upwards, a backslash or a control character."""
_INVALID = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, ValueError, FileExistsError, IsADirectoryError, NotADirectoryError),
    RuntimeError,  # zipfile: a password or an unknown compression; tarfile: headers without end
)
_MAGIC = {"gz": b"\x1f\x8b", "bz2": b"BZh", "xz": b"\xfd7zXZ\x00"}
_OPENERS: dict[str, Any] = {"gz": gzip.open, "bz2": bz2.open, "xz": lzma.open}


class ArchiveError(Exception):
    """An archive is broken, unsafe or too large; the message follows its name."""


def unpack(archive: Path, kind: Kind, out: Path, max_bytes: int) -> None:
    """Unpack `archive` to the new file or folder `out`, at most `max_bytes`; links are refused.

    Raises ArchiveError; `out` may then exist. Touches the disk.
    """
    written = members = 0

    def add(count: int) -> None:
        nonlocal written
        written += count
        if written > max_bytes:
            raise ArchiveError(f"unpacks to more than {max_bytes / 1e9:g} GB (download.max_gb)")

    def check(name: str, count: int, is_plain: bool) -> None:
        """Check and count a member before it is written."""
        nonlocal members
        members += 1
        add(count)
        if members > MAX_MEMBERS:
            raise ArchiveError(f"contains more than {MAX_MEMBERS:,} files")
        if _UNSAFE.search(name):
            raise ArchiveError(f"contains '{name}', which is not a safe path")
        if not is_plain:
            raise ArchiveError(f"contains the link or device '{name}'")

    with archive.open("rb") as file:
        head = file.read(64)
    try:
        if kind == "zip":  # zipfile never gives more bytes than a header states
            with zipfile.ZipFile(archive) as opened:
                for info in opened.infolist():
                    info.filename = info.filename.replace("\\", "/")  # some programs of Windows
                    check(info.filename, info.file_size, not stat.S_ISLNK(info.external_attr >> 16))
                    opened.extract(info, out)
            return
        if kind == "tar":  # its first bytes tell its compression
            inner = next((name for name, magic in _MAGIC.items() if head.startswith(magic)), "")
        with _OPENERS.get(inner if kind == "tar" else kind, open)(archive, "rb") as stream:
            if kind == "tar":
                _untar(stream, out, check)
                return
            with out.open("xb") as target:
                for piece in iter(partial(stream.read, _PIECE_BYTES), b""):
                    add(len(piece))
                    target.write(piece)
    except (*_INVALID, OSError) as error:
        if not isinstance(error, _INVALID) and error.errno is not None:
            raise  # of the disk
        raise ArchiveError(f"is broken, or not an archive of this kind: {error}") from None


def _untar(stream: IO[bytes], out: Path, check: Callable[[str, int, bool], None]) -> None:
    last, count = b"", 0

    def read(size: int) -> bytes:
        nonlocal last
        if not 0 <= size <= _MAX_READ_BYTES:
            raise ArchiveError("contains a header that is too long")
        last = stream.read(size)
        return last

    source: Any = SimpleNamespace(read=read, seek=stream.seek, tell=stream.tell)
    with tarfile.open(fileobj=source, mode="r:") as tar:
        for member in tar:
            count += 1
            check(member.name, member.size, member.isreg() or member.isdir())
            tar.extract(member, out, set_attrs=False, filter="data")
    # tarfile takes a broken header for the end; a real end is zeros.
    if not last or any(last):
        raise ArchiveError(f"is broken after {count} members")
    while read(_PIECE_BYTES):  # up to the checksum of the compressed stream
        pass
