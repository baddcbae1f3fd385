"""Records of data files: their identity, and digests of their content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from models.base import DataError
from models.common.data_files import cache_folder, companions, files, identity, progress
from training.storage import StorageError, atomic_write

_PIECES = 16
_PIECE_BYTES = 2**20
_BUDGET_BYTES = 4 * 2**30
"""Of the data of a run: ten seconds at 430 MB/s of sha256 without instructions for it."""
_CACHED_FROM_BYTES = 64 * 2**20
"""Less is read again: that takes no longer than the cache."""
_SHOWN_FROM_BYTES = 2**30
_THREADS = 4
_MOST_NAMES = 1000
_RUN = "origins.json"
"""A folder with this file is a run folder."""


@dataclass(frozen=True)
class FileStamp:
    """The identity of a file: cheap to compare, without reading it."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


@dataclass(frozen=True)
class FileRecord:
    """A file as it was when the run took it."""

    size: int
    mtime_ns: int
    digest: str
    ctime_ns: int = 0
    inode: int = 0
    """0 in records of older versions; as after a copy, the digest is compared then."""

    @property
    def stamp(self) -> FileStamp:
        """Its identity."""
        return FileStamp(self.size, self.mtime_ns, self.ctime_ns, self.inode)


def stamp_of(path: Path) -> FileStamp | None:
    """The identity of a file; None if it does not exist or is not a file. Reads the disk."""
    try:
        return FileStamp(*identity(path)) if path.is_file() else None
    except OSError:  # deleted between the two calls
        return None


def record_files(folder: Path, stamps: Mapping[str, FileStamp]) -> dict[str, FileRecord]:
    """Records of the files in `stamps`, without those that changed meanwhile. Reads the disk."""
    records = {}
    for name, stamp in stamps.items():
        try:
            digest = digest_of(folder / name, stamp.size)
        except OSError:
            continue
        if stamp_of(folder / name) == stamp:
            records[name] = FileRecord(digest=digest, **asdict(stamp))
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
        try:
            if stamp is None or digest_of(folder / name, stamp.size) != file.digest:
                yield name
        except OSError:
            yield name


def data_digests(paths: Mapping[str, Path]) -> dict[str, str] | None:
    """A digest of each file of the data at `paths`, by the key of its setting and its name in it.

    Up to 4 GiB all content counts; of more, an equal share of each file. Times and absolute paths
    do not count, nor do hidden files and run folders. A file has those of its name beside it.
    Above 1000 files, one digest for each key. None: no files, or some that cannot be listed.
    Content that did not change since is not read again. Reads the disk, writes the cache.
    """
    try:
        named = {name: file for key, path in paths.items() for name, file in _files(key, path)}
    except (DataError, OSError):  # what reads the data reports it
        return None
    stamps = {name: stamp for name, file in named.items() if (stamp := stamp_of(file))}
    total, most = sum(stamp.size for stamp in stamps.values()), _BUDGET_BYTES
    if total > _BUDGET_BYTES:  # a power of two, so that one file more seldom changes it
        most = 2 ** max(13, (_BUDGET_BYTES // len(stamps)).bit_length() - 1)
    content = json.dumps([most, {key: str(path) for key, path in paths.items()}])
    cache = cache_folder() / f"data-digests-{hashlib.sha256(content.encode()).hexdigest()[:16]}"
    known = _cached(cache) if total >= _CACHED_FROM_BYTES else {}
    digests = {n: known[n].digest for n, s in stamps.items() if n in known and known[n].stamp == s}
    unread = [name for name in stamps if name not in digests]
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(_THREADS, "digest"))
        results = pool.map(lambda name: _digest(named[name], stamps[name].size, most), unread)
        update = None
        if sum(stamps[name].size for name in unread) > _SHOWN_FROM_BYTES:
            update = stack.enter_context(progress("digests of the data", len(unread)))
        for number, (name, digest) in enumerate(zip(unread, results, strict=True), start=1):
            digests[name] = digest
            if update is not None:
                update(number)
    if unread and total >= _CACHED_FROM_BYTES:
        records = {n: asdict(FileRecord(digest=digests[n], **asdict(stamps[n]))) for n in stamps}
        with suppress(OSError, StorageError):
            cache.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(cache, json.dumps(records).encode())
    return _merged(digests) if len(digests) > _MOST_NAMES else digests or None


def _files(key: str, path: Path) -> Iterator[tuple[str, Path]]:
    """The files of the data at `path`, with names that a copy of it has, too."""
    if not path.is_dir():
        yield key, path
        yield from ((f"{key}{rest}", other) for rest, other in companions(path))
        return
    inside = files(path)
    runs = {file.parent for file in inside if file.name == _RUN and file.parent != path}
    for file in inside:
        if not runs.intersection(file.parents):
            yield f"{key}/{file.relative_to(path).as_posix()}", file


def _digest(path: Path, size: int, most: int) -> str:
    try:
        return digest_of(path, size, most)
    except OSError as error:  # what reads the data reports it
        return f"unreadable: {error.strerror}"


def _cached(path: Path) -> dict[str, FileRecord]:
    try:
        return {name: FileRecord(**entry) for name, entry in json.loads(path.read_bytes()).items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def _merged(digests: Mapping[str, str]) -> dict[str, str]:
    """One digest for each setting."""
    merged: dict[str, Any] = {}
    for name in sorted(digests):
        key = name.partition("/")[0]
        merged.setdefault(key, hashlib.sha256()).update(f"{name}\0{digests[name]}\0".encode())
    return {key: digest.hexdigest()[:32] for key, digest in merged.items()}
