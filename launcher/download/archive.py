"""Unpacking of untrusted archives: nothing is written outside the folder or above the limits."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import posixpath
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from launcher.config.feature_checks import Kind

if not hasattr(tarfile, "data_filter"):  # before Python 3.10.12 and 3.11.4
    from backports import tarfile  # type: ignore[no-redef]

MAX_MEMBERS = 2_000_000
_MAX_READ_BYTES = 1 << 26
"""At once; tarfile reads a header into memory as a whole."""
_UNSAFE = re.compile(r"^[A-Za-z]:|[\\\x00-\x1f\x7f]")
"""A drive, a backslash or a control character."""
_MAX_LINK_BYTES = 4096
_PIECE_BYTES = 1 << 20
_INVALID = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    ValueError,
    RuntimeError,  # zipfile: an unknown compression; tarfile: headers without end
)
_DECOMPRESSORS: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}


class ArchiveError(Exception):
    """An archive is broken, unsafe or too large; the message follows its name."""


def unpack(
    archive: Path, kind: Kind, out: Path, max_bytes: int, progress: Callable[[int], None]
) -> None:
    """Unpack `archive` to the new file or folder `out`.

    Symbolic links are made last, so that no path leads through one. Raises ArchiveError; `out` may
    then exist. Touches the disk. `progress` is called with the bytes so far.
    """
    unpacker = _Unpacker(out, max_bytes, progress)
    try:
        if kind == "zip":
            unpacker.unpack_zip(archive)
        elif kind == "tar":
            unpacker.unpack_tar(archive)
        else:
            unpacker.unpack_file(archive)
    except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        name = os.path.relpath(error.filename2 or error.filename, out)
        raise ArchiveError(f"contains '{name}' as file, folder or link at once") from None
    except (*_INVALID, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
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
        self._links: dict[str, str] = {}

    def unpack_zip(self, archive: Path) -> None:
        """zipfile never gives more bytes than a header states: the headers are counted."""
        with zipfile.ZipFile(archive) as opened:
            self._out.mkdir()
            for info in opened.infolist():
                self._zip_member(opened, info)
        self._make_links()

    def _zip_member(self, opened: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
        info.filename = info.filename.replace("\\", "/")  # written so by some programs of Windows
        if info.flag_bits & 1:
            raise ArchiveError(f"needs a password, for '{info.filename}'")
        path = self._add_member(info.filename, info.file_size)
        if info.create_system == 3 and stat.S_ISLNK(info.external_attr >> 16):  # 3: Unix
            with opened.open(info) as content:
                target = content.read(_MAX_LINK_BYTES).decode(errors="surrogateescape")
            self._links[path] = target
        elif path != ".":
            opened.extract(info, self._out)

    def unpack_tar(self, archive: Path) -> None:
        """The filter `data` of tarfile is the second check of each member."""
        with _decompressed(archive, may_be_plain=True) as inner:
            stream = _BoundedReader(inner)
            with tarfile.open(fileobj=stream, mode="r:") as opened:  # type: ignore[call-overload]
                self._out.mkdir()
                for info in opened:
                    self._tar_member(opened, info)
                # tarfile takes a broken header for the end; a real end is zeros.
                if not stream.last or any(stream.last):
                    raise ArchiveError(f"is broken after {self._members} members")
            while piece := stream.read(_PIECE_BYTES):  # up to the checksum of the compressed stream
                self._add_bytes(len(piece))
        self._make_links()

    def _tar_member(self, opened: tarfile.TarFile, info: tarfile.TarInfo) -> None:
        if not (info.isreg() or info.isdir() or info.issym()):
            kind = "hard link" if info.islnk() else "special file"
            raise ArchiveError(f"contains the {kind} '{info.name}'")
        path = self._add_member(info.name, info.size)
        if info.issym():
            self._links[path] = info.linkname
        elif path != ".":
            opened.extract(info, self._out, set_attrs=False, filter="data")

    def unpack_file(self, archive: Path) -> None:
        """One compressed file; its size is not known before."""
        with _decompressed(archive) as stream, self._out.open("xb") as file:
            while piece := stream.read(_PIECE_BYTES):
                self._add_bytes(len(piece))
                file.write(piece)

    def _add_bytes(self, count: int) -> None:
        self._bytes += count
        if self._bytes > self._max_bytes:
            limit = f"{self._max_bytes / 1e9:g} GB"
            raise ArchiveError(f"unpacks to more than {limit} (download.max_gb)")
        self._progress(self._bytes)

    def _add_member(self, name: str, count: int) -> str:
        """Check and count a member before it is written; gives its normalized path."""
        self._members += 1
        if self._members > MAX_MEMBERS:
            raise ArchiveError(f"contains more than {MAX_MEMBERS:,} files")
        self._add_bytes(count)
        if posixpath.isabs(name) or ".." in name.split("/") or _UNSAFE.search(name):
            raise ArchiveError(f"contains '{name}', which is not a safe path")
        return posixpath.normpath(name)

    def _make_links(self) -> None:
        """Make the symbolic links; each leads to a file or folder, not to another link."""
        links = {}
        for path, target in self._links.items():
            folder = posixpath.dirname(path)
            end = posixpath.normpath(posixpath.join(folder, target))
            if posixpath.isabs(end) or end.startswith(".."):
                raise ArchiveError(f"contains '{path}', a link that leads out of the folder")
            if end == "." or f"{path}/".startswith(f"{end}/") or not (self._out / end).exists():
                raise ArchiveError(f"contains '{path}', a link to no other file or folder")
            links[self._out / path] = posixpath.relpath(end, folder or ".")
        for link in links:  # before any link, so that no folder is made through one
            link.parent.mkdir(parents=True, exist_ok=True)
        for link, relative in links.items():
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


def _decompressed(archive: Path, may_be_plain: bool = False) -> IO[bytes]:
    """The content of a compressed file, by its first bytes: a suffix may be wrong."""
    with archive.open("rb") as file:
        head = file.read(6)
    for magic, opened in _DECOMPRESSORS.items():
        if head.startswith(magic):
            stream: IO[bytes] = opened(archive)
            return stream
    if not may_be_plain:
        raise EOFError("unknown first bytes")
    return archive.open("rb")
