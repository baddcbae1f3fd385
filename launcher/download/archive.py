"""Unpacking of untrusted archives: nothing is written outside the folder or above the limits."""

from __future__ import annotations

import bz2
import gzip
import lzma
import posixpath
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from launcher.config.feature_checks import Kind

if not hasattr(tarfile, "data_filter"):  # before Python 3.10.12 and 3.11.4
    from backports import tarfile  # type: ignore[no-redef]

MAX_MEMBERS = 2_000_000
_MAX_READ_BYTES = 1 << 26
"""At once; tarfile reads a header into memory as a whole."""
_UNSAFE = re.compile(r"^/|^[A-Za-z]:|(^|/)\.\.(/|$)|[\\\x00-\x1f\x7f]")
"""An absolute path, a drive, a way upwards, a backslash or a control character."""
_PIECE_BYTES = 1 << 20
_INVALID = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, ValueError, FileExistsError, IsADirectoryError, NotADirectoryError),
    RuntimeError,  # zipfile: a password or an unknown compression; tarfile: headers without end
)
_MAGIC = {"gz": b"\x1f\x8b", "bz2": b"BZh", "xz": b"\xfd7zXZ\x00"}


class ArchiveError(Exception):
    """An archive is broken, unsafe or too large; the message follows its name."""


def unpack(
    archive: Path, kind: Kind, out: Path, max_bytes: int, progress: Callable[[int], None]
) -> None:
    """Unpack `archive` to the new file or folder `out`.

    Raises ArchiveError; `out` may then exist. Touches the disk. `progress` is called with the
    bytes so far.
    """
    unpacker = _Unpacker(out, max_bytes, progress)
    try:
        if kind == "zip":
            unpacker.unpack_zip(archive)
        elif kind == "tar":
            unpacker.unpack_tar(archive)
        else:
            unpacker.unpack_file(archive, kind)
    except tarfile.FilterError as error:
        raise ArchiveError(f"is not safe: {error}") from None
    except (*_INVALID, OSError) as error:
        if not isinstance(error, _INVALID) and error.errno is not None:
            raise  # of the disk
        with archive.open("rb") as file:
            if file.read(64).lstrip().startswith(b"<"):
                message = "is a web page, not an archive; its server may require a login"
                raise ArchiveError(message) from None
        raise ArchiveError(f"is broken, or not an archive of this kind: {error}") from None


class _Unpacker:
    """Writes the members of one archive, and counts them and their bytes."""

    def __init__(self, out: Path, max_bytes: int, progress: Callable[[int], None]) -> None:
        self._out, self._max_bytes, self._progress = out, max_bytes, progress
        self._bytes = 0
        self._members = 0

    def unpack_zip(self, archive: Path) -> None:
        """zipfile never gives more bytes than a header states: the headers are counted."""
        self._out.mkdir()
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                info.filename = info.filename.replace("\\", "/")  # some programs of Windows
                self._add_member(info.filename, info.file_size)
                if stat.S_ISLNK(info.external_attr >> 16):  # zipfile would write a file
                    raise ArchiveError(f"contains the link '{info.filename}'")
                opened.extract(info, self._out)

    def unpack_tar(self, archive: Path) -> None:
        """Symbolic links are made last, so that nothing is written through one.

        The filter `data` of tarfile alone would not do: it resolves long chains of links wrongly
        (CVE-2025-4517).
        """
        self._out.mkdir()
        with _decompressed(archive, "tar") as inner:
            stream = _BoundedReader(inner)
            with tarfile.open(fileobj=stream, mode="r:") as opened:  # type: ignore[call-overload]
                links = {}
                for info in opened:
                    self._add_member(info.name, info.size)
                    if info.issym():
                        links[posixpath.normpath(info.name)] = info.linkname
                    elif info.isreg() or info.isdir():
                        opened.extract(info, self._out, set_attrs=False, filter="data")
                    else:
                        raise ArchiveError(f"contains the hard link or device '{info.name}'")
                # tarfile takes a broken header for the end; a real end is zeros.
                if not stream.last or any(stream.last):
                    raise ArchiveError(f"is broken after {self._members} members")
            while piece := stream.read(_PIECE_BYTES):  # up to the checksum of the compressed stream
                self._add_bytes(len(piece))
        self._make_links(links)

    def unpack_file(self, archive: Path, kind: str) -> None:
        """One compressed file; its size is not known before."""
        with _decompressed(archive, kind) as stream, self._out.open("xb") as file:
            while piece := stream.read(_PIECE_BYTES):
                self._add_bytes(len(piece))
                file.write(piece)

    def _add_bytes(self, count: int) -> None:
        self._bytes += count
        if self._bytes > self._max_bytes:
            limit = f"{self._max_bytes / 1e9:g} GB"
            raise ArchiveError(f"unpacks to more than {limit} (download.max_gb)")
        self._progress(self._bytes)

    def _add_member(self, name: str, count: int) -> None:
        """Check and count a member before it is written."""
        self._members += 1
        if self._members > MAX_MEMBERS:
            raise ArchiveError(f"contains more than {MAX_MEMBERS:,} files")
        self._add_bytes(count)
        if _UNSAFE.search(name):
            raise ArchiveError(f"contains '{name}', which is not a safe path")

    def _make_links(self, links: Mapping[str, str]) -> None:
        """Each leads to a file or folder, none to another link, and none is below another."""
        targets = {}
        for path, target in links.items():
            folder = posixpath.dirname(path)
            end = posixpath.normpath(posixpath.join(folder, target))
            if end.startswith(("/", "..")) or not (self._out / end).exists():
                raise ArchiveError(f"contains '{path}', a link to no file or folder in it")
            targets[self._out / path] = posixpath.relpath(end, folder or ".")
        for link in targets:  # before any link, so that no folder is made through one
            link.parent.mkdir(parents=True, exist_ok=True)
        for link, relative in targets.items():
            link.symlink_to(relative)


class _BoundedReader:
    """A decompressed stream for tarfile, which reads a header as a whole, of whatever length."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.seek, self.tell = stream.seek, stream.tell
        self.last = b""
        """The bytes of the last read."""

    def read(self, count: int = -1) -> bytes:
        if count < 0 or count > _MAX_READ_BYTES:
            raise ArchiveError("contains a header that is too long")
        self.last = self._stream.read(count)
        return self.last


def _decompressed(archive: Path, kind: str) -> IO[bytes]:
    """The content of a compressed file; the first bytes of a tar file tell its compression."""
    if kind == "tar":
        with archive.open("rb") as file:
            head = file.read(6)
        kind = next((name for name, magic in _MAGIC.items() if head.startswith(magic)), "")
    openers: dict[str, Any] = {"gz": gzip.open, "bz2": bz2.open, "xz": lzma.open}
    stream: IO[bytes] = openers.get(kind, open)(archive, "rb")
    return stream
