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
from functools import partial
from pathlib import Path
from typing import Any

from launcher.config.feature_checks import Kind

if not hasattr(tarfile, "data_filter"):  # before Python 3.10.12 and 3.11.4
    from backports import tarfile  # type: ignore[no-redef]

MAX_MEMBERS = 2_000_000
_HEADER_BYTES, _PIECE_BYTES = 1 << 26, 1 << 20
"""tarfile reads a header into memory as a whole."""
_UNSAFE = re.compile(r"^/|^[A-Za-z]:|(^|/)\.\.(/|$)|[\\\x00-\x1f\x7f]")
"""An absolute path, a drive, a way upwards, a backslash or a control character."""
_INVALID = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, ValueError, FileExistsError, IsADirectoryError, NotADirectoryError),
    RuntimeError,  # zipfile: a password or an unknown compression; tarfile: headers without end
)


class ArchiveError(Exception):
    """An archive is broken, unsafe or too large; the message follows its name."""


class _Member(tarfile.TarInfo):
    """A header that is whole and fits in memory: tarfile takes a broken one for the end."""

    @classmethod
    def frombuf(cls, buf: Any, encoding: str, errors: str) -> Any:
        """As TarInfo.frombuf. Raises ReadError."""
        try:
            member = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if buf and not any(buf):  # zeros are the real end
                raise
            raise tarfile.ReadError(str(error)) from None
        if member.size < 0 or (member.size > _HEADER_BYTES and not member.isreg()):
            raise tarfile.ReadError("a header has an impossible size")
        return member


def unpack(archive: Path, kind: Kind, out: Path, max_bytes: int) -> None:
    """Unpack `archive` to the new file or folder `out`, at most `max_bytes`; links are refused.

    Raises ArchiveError; `out` may then exist. Touches the disk.
    """
    written = members = 0

    def check(name: str, count: int, is_plain: bool = True) -> None:
        """Count the bytes of a member, and check it before it is written."""
        nonlocal written, members
        written, members = written + count, members + 1
        if count < 0 or written > max_bytes:
            raise ArchiveError(f"unpacks to more than {max_bytes / 1e9:g} GB (download.max_gb)")
        if members > MAX_MEMBERS:
            raise ArchiveError(f"contains more than {MAX_MEMBERS:,} files")
        if _UNSAFE.search(name):
            raise ArchiveError(f"contains '{name}', which is not a safe path")
        if not is_plain:
            raise ArchiveError(f"contains the link or device '{name}'")

    try:
        if kind == "zip":  # zipfile never gives more bytes than a header states
            with zipfile.ZipFile(archive) as opened:
                for info in opened.infolist():
                    info.filename = info.filename.replace("\\", "/")  # some programs of Windows
                    check(info.filename, info.file_size, not stat.S_ISLNK(info.external_attr >> 16))
                    opened.extract(info, out)
        elif kind == "tar":  # its first bytes tell its compression
            with tarfile.open(archive, "r:*", tarinfo=_Member) as tar:
                for member in tar:
                    check(member.name, member.size, member.isreg() or member.isdir())
                    tar.extract(member, out, set_attrs=False, filter="data")
                stream: Any = tar.fileobj
                while stream.read(_PIECE_BYTES):  # up to the checksum of the compressed stream
                    pass
        else:
            openers: dict[str, Any] = {"gz": gzip.open, "bz2": bz2.open, "xz": lzma.open}
            with openers[kind](archive, "rb") as stream, out.open("xb") as target:
                for piece in iter(partial(stream.read, _PIECE_BYTES), b""):
                    members = 0  # of one file
                    check(out.name, len(piece))
                    target.write(piece)
    except (*_INVALID, OSError) as error:
        if not isinstance(error, _INVALID) and error.errno is not None:
            raise  # of the disk
        raise ArchiveError(f"is broken, or not an archive of this kind: {error}") from None
