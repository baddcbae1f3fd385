"""What an archive holds, one member after the other: files, folders and links, and nothing else."""

from __future__ import annotations

import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Literal

from launcher.download.bounds import Unsafe

_LONGEST_LINK = 4096


@dataclass(frozen=True)
class Member:
    """One entry of an archive."""

    path: str
    """As the archive has it, with `/` between its parts."""
    kind: Literal["file", "folder", "link", "twin"]
    """link: a symbolic one; twin: the same file as another member, a hard link."""
    target: str
    """What a link leads to, from its own folder; of a twin, the path of the other member."""
    open: Callable[[], IO[bytes]]
    """The content of a file."""
    size: int | None = None
    """Bytes that the archive says it has; None: its reader minds that itself."""


def zip_members(archive: zipfile.ZipFile) -> Iterator[Member]:
    """The members of a zip file, in its order. Raises Unsafe."""
    for info in archive.infolist():
        path = info.filename.replace("\\", "/")  # some programs of Windows write it so
        mode = info.external_attr >> 16
        kind = stat.S_IFMT(mode) if info.create_system == 3 else 0  # 3: Unix
        if info.flag_bits & 1:
            raise Unsafe(f"needs a password, for '{path}'")
        opened = _opener(archive, info)
        if kind == stat.S_IFLNK:
            with opened() as content:
                target = content.read(_LONGEST_LINK).decode(errors="surrogateescape")
            yield Member(path, "link", target, opened)
        elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise Unsafe(f"holds '{path}', which is no file")
        else:
            what: Literal["file", "folder"] = "folder" if path.endswith("/") else "file"
            yield Member(path, what, "", opened, info.file_size)


def tar_members(archive: tarfile.TarFile) -> Iterator[Member]:
    """The members of a tar file, in its order. Raises Unsafe."""
    for info in archive:
        opened = _tar_opener(archive, info)
        if info.isdir():
            yield Member(info.name, "folder", "", opened)
        elif info.isreg():
            yield Member(info.name, "file", "", opened)
        elif info.issym():
            yield Member(info.name, "link", info.linkname, opened)
        elif info.islnk():
            yield Member(info.name, "twin", info.linkname, opened)
        else:
            raise Unsafe(f"holds '{info.name}', which is no file but a device or a pipe")


def _opener(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Callable[[], IO[bytes]]:
    return lambda: archive.open(info)


def _tar_opener(archive: tarfile.TarFile, info: tarfile.TarInfo) -> Callable[[], IO[bytes]]:
    def opened() -> IO[bytes]:
        content = archive.extractfile(info)
        assert content is not None, "only files are opened"
        return content

    return opened
