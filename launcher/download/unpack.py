"""Unpacks an archive that anyone may have made: nothing leaves its folder, nothing outgrows it."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from launcher.download.bounds import Bounded, Bounds, Unsafe
from launcher.download.errors import refused
from launcher.download.members import tar_members, zip_members
from launcher.download.progress import Progress
from launcher.download.targets import Target
from launcher.download.terms import Terms
from launcher.download.tree import Tree
from training.logging.quantities import size

MOST_MEMBERS = 2_000_000
_PIECE = 1 << 20
_BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    ValueError,
    RuntimeError,  # zipfile: a compression that it does not know; tarfile: headers without end
)


def unpack(archive: Path, target: Target, place: Path, terms: Terms) -> None:
    """Unpack `archive`, of the target's kind, as the new file or folder `place`.

    What it comes to is counted as it is written: headers are not believed. Raises SettingsError
    for an archive that is broken or not safe; `place` may then hold some of it. Touches the disk.
    """

    def drawn(count: int) -> None:
        terms.draw(Progress(target.name, count, None, count, is_unpacking=True))

    bounds = Bounds(terms.most_bytes, MOST_MEMBERS, drawn)
    try:
        with _told(archive):
            if target.kind == "zip":
                _zip(archive, place, bounds)
            elif target.kind == "tar":
                _tar(archive, place, bounds)
            else:
                _file(archive, place, bounds)
    except Unsafe as error:
        fix = "unpack: no  to keep it as it is"
        raise refused(f"{target.name} {error}", str(target.file.url), fix=fix) from None


def _zip(archive: Path, place: Path, bounds: Bounds) -> None:
    with zipfile.ZipFile(archive) as opened:
        claimed = sum(info.file_size for info in opened.infolist())
        free = shutil.disk_usage(archive.parent).free
        if claimed > free:
            raise Unsafe(f"comes to {size(claimed)}, and the disk has {size(free)}")
        tree = Tree(place, bounds)
        for member in zip_members(opened):
            tree.add(member)
        tree.link()


def _tar(archive: Path, place: Path, bounds: Bounds) -> None:
    with _decompressed(archive, may_be_plain=True) as inner:
        stream = Bounded(inner, bounds.most_read)
        with tarfile.open(fileobj=stream, mode="r:") as opened:  # type: ignore[call-overload]
            tree = Tree(place, bounds)
            for member in tar_members(opened):
                tree.add(member)
            # tarfile takes a broken header in the middle for the end; a real end is of zeros.
            if not stream.last or any(stream.last):
                raise Unsafe(f"breaks off after {bounds.members} members")
            tree.link()
        while stream.read(_PIECE):  # up to the checksum of what is compressed
            pass


def _file(archive: Path, place: Path, bounds: Bounds) -> None:
    """One compressed file, which is not looked into."""
    with _decompressed(archive) as stream, place.open("xb") as file:
        while piece := stream.read(_PIECE):
            bounds.add(len(piece))
            file.write(piece)


def _decompressed(archive: Path, may_be_plain: bool = False) -> IO[bytes]:
    """What is in a file, by its first bytes: the suffix of a tar file does not always say it."""
    with archive.open("rb") as file:
        head = file.read(6)
    for magic, opened in _FORMATS.items():
        if head.startswith(magic):
            stream: IO[bytes] = opened(archive)
            return stream
    if not may_be_plain:
        raise EOFError("it does not begin as one")
    return archive.open("rb")


# What they give is closed by who asked for it.
_FORMATS: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}


@contextmanager
def _told(archive: Path) -> Iterator[None]:
    """What the readers of archives raise, as one fault."""
    try:
        yield
    except _BROKEN as error:
        raise Unsafe(_broken(archive, error)) from None
    except OSError as error:
        if error.errno is not None:
            raise  # the disk's
        raise Unsafe(_broken(archive, error)) from None


def _broken(archive: Path, error: BaseException) -> str:
    with archive.open("rb") as file:
        head = file.read(64).lstrip()
    if head.startswith(b"<"):
        return "is no archive but a web page; its server may want you to log in"
    return f"is broken, or no archive of this kind: {error}"
