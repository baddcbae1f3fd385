"""Records of data files: their identity, and digests of their content."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gearshift.models.base import DataError
from gearshift.models.common import data_files
from gearshift.models.common.data_files import companions, identity

_PIECES = 16
_PIECE_BYTES = 2**20
_BUDGET_BYTES = 4 * 2**30
"""Of the data of a run: ten seconds at 430 MB/s of sha256 without instructions for it."""
_THREADS = 4
_MOST_NAMES = 1000
_RUN = "origins.json"
"""A folder with this file is a run folder."""


@dataclass(frozen=True)
class FileRecord:
    """A file as it was when the run took it; without a digest its identity, cheap to compare."""

    size: int
    mtime_ns: int
    digest: str = ""
    ctime_ns: int = 0
    inode: int = 0

    @property
    def stamp(self) -> FileRecord:
        """Its identity."""
        return replace(self, digest="")


def stamp_of(path: Path) -> FileRecord | None:
    """The identity of a file; None if it does not exist or is not a file. Reads the disk."""
    with suppress(OSError):
        size, mtime_ns, ctime_ns, inode = identity(path)
        return FileRecord(size, mtime_ns, "", ctime_ns, inode) if path.is_file() else None
    return None


def record_files(folder: Path, stamps: Mapping[str, FileRecord]) -> dict[str, FileRecord]:
    """Records of the files in `stamps`, without those that changed meanwhile. Reads the disk."""
    records = {}
    for name, stamp in stamps.items():
        with suppress(OSError):
            digest = digest_of(folder / name, stamp.size)
            if stamp_of(folder / name) == stamp:
                records[name] = replace(stamp, digest=digest)
    return records


def digest_of(path: Path, size: int, most: int = _PIECES * _PIECE_BYTES) -> str:
    """A digest of size and content; above `most` bytes, of as many, in evenly spaced pieces.

    Raises OSError.
    """
    digest = hashlib.sha256(f"{size}\n".encode())
    length = _PIECE_BYTES
    starts: Iterable[int] = range(0, size, length)
    if size > most:
        length = min(length, most // 2)
        pieces = most // length
        starts = (number * (size - length) // (pieces - 1) for number in range(pieces))
    with path.open("rb", buffering=0) as file:
        for start in starts:
            file.seek(start)
            digest.update(file.read(length))
    return digest.hexdigest()[:32]


def changed_files(folder: Path, files: Mapping[str, FileRecord]) -> Iterator[str]:
    """The files that changed since they were recorded, or are gone. Reads the disk."""
    for name, file in files.items():
        stamp = stamp_of(folder / name)
        if stamp == file.stamp:
            continue
        if stamp is None or _digest(folder / name, stamp.size) != file.digest:
            yield name


def data_digests(paths: Mapping[str, Path]) -> dict[str, str] | None:
    """A digest of each file of the data at `paths`, by the key of its setting and its name in it.

    Up to 4 GiB all content counts; of more, an equal share of each file. Times and absolute paths
    do not count, nor do hidden files and run folders. A file has those of its name beside it. Above
    1000 files, one digest for each key. None: no files, or some that cannot be listed. Reads the
    disk.
    """
    files: dict[str, Path] = {}
    try:
        for key, path in paths.items():
            files |= _files(key, path)
    except (DataError, OSError):  # what reads the data reports it
        return None
    stamps = {name: stamp_of(file) for name, file in files.items()}
    sizes = {name: stamp.size for name, stamp in stamps.items() if stamp}
    most = _BUDGET_BYTES
    if sum(sizes.values()) > most:  # a power of two, so that one file more seldom changes it
        most = 2 ** max(13, (most // len(sizes)).bit_length() - 1)

    def digest(name: str) -> str:
        return _digest(files[name], sizes[name], most)

    with ThreadPoolExecutor(_THREADS, "digest") as pool:
        digests = dict(zip(sizes, pool.map(digest, sizes), strict=True))
    if len(digests) <= _MOST_NAMES:
        return digests or None
    merged: defaultdict[str, Any] = defaultdict(hashlib.sha256)
    for name in sorted(digests):
        merged[name.partition("/")[0]].update(f"{name}\0{digests[name]}\0".encode())
    return {key: value.hexdigest()[:32] for key, value in merged.items()}


def _files(key: str, path: Path) -> Iterator[tuple[str, Path]]:
    """The files of the data at `path`, with names that a copy of it has, too."""
    if not path.is_dir():
        yield key, path
        for rest, other in companions(path):
            yield f"{key}{rest}", other
        return
    inside = data_files.files(path)
    runs = {file.parent for file in inside if file.name == _RUN} - {path}
    for file in inside:
        if runs.isdisjoint(file.parents):
            yield f"{key}/{file.relative_to(path).as_posix()}", file


def _digest(path: Path, size: int, most: int = _PIECES * _PIECE_BYTES) -> str:
    try:
        return digest_of(path, size, most)
    except OSError as error:  # what reads the data reports it
        return f"unreadable: {error.strerror}"
