"""Files with a checksum for each block: written in one pass, checked by several threads."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from training.checkpoint.manifest import BLOCK_BYTES, CheckpointError, File
from training.records.line_file import naming

_THREADS = 4
_READ_BYTES = 2**20


class BlockWriter:
    """Writes a new file, hashing blocks beside it. Touches disk.

    Data is not copied: it must not change before it has left the writer, at the latest with the
    `with`. At most `_THREADS` + 2 blocks are held. On leaving, the file is synced to the device.
    Raises RunFolderError.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._block: list[memoryview] = []
        self._room = BLOCK_BYTES
        self._bytes = 0
        self._pool = ThreadPoolExecutor(_THREADS, "checksum")
        self._hashing: deque[Future[str]] = deque()
        self._digests: list[str] = []

    def __enter__(self) -> BlockWriter:
        with naming(self._path):
            self._stream = self._path.open("xb", buffering=0)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if fault is None:
                if self._block:
                    self._flush()
                with naming(self._path):
                    os.fsync(self._stream.fileno())
                self._digests.extend(future.result() for future in self._hashing)
        finally:
            self._stream.close()
            self._pool.shutdown()

    def write(self, data: memoryview | bytes) -> None:
        """Append `data`, bytes one by one (a memoryview of format "B")."""
        rest = memoryview(data)
        while rest:
            view, rest = rest[: self._room], rest[self._room :]
            self._block.append(view)
            self._room -= len(view)
            if not self._room:
                self._flush()

    def file(self) -> File:
        """What was written; after leaving."""
        return File(self._path.name, self._bytes, tuple(self._digests))

    def _flush(self) -> None:
        block, self._block, self._room = self._block, [], BLOCK_BYTES
        if len(self._hashing) == _THREADS:
            self._digests.append(self._hashing.popleft().result())
        self._hashing.append(self._pool.submit(_digest, block))
        with naming(self._path):
            for rest in block:
                self._bytes += len(rest)
                while rest:
                    rest = rest[self._stream.write(rest) :]


def check(folder: Path, files: tuple[File, ...], part: int = 0, parts: int = 1) -> None:
    """Compare the blocks of `files` with their checksums; with `parts`, each `parts`-th block.

    Raises CheckpointError naming the first file that differs, and where. Touches disk.
    """
    blocks = [(file, number) for file in files for number in range(len(file.sha256))]
    with ThreadPoolExecutor(_THREADS, "checksum") as pool:
        found = pool.map(lambda block: _is_whole(folder, *block), blocks[part::parts])
        for (file, number), is_whole in zip(blocks[part::parts], found, strict=True):
            if not is_whole:
                raise CheckpointError(
                    f"{folder / file.name} is damaged: the bytes from {number * BLOCK_BYTES} on"
                    " are not those that were written"
                )


def _is_whole(folder: Path, file: File, number: int) -> bool:
    # Read and not mapped: a sector that the disk cannot read would end the process.
    digest, buffer = hashlib.sha256(), memoryview(bytearray(_READ_BYTES))
    start = number * BLOCK_BYTES
    left = min(BLOCK_BYTES, file.bytes - start)
    try:
        with (folder / file.name).open("rb", buffering=0) as stream:
            stream.seek(start)
            while left and (count := stream.readinto(buffer[:left])):
                digest.update(buffer[:count])
                left -= count
    except OSError as fault:
        raise CheckpointError(f"{folder / file.name} cannot be read: {fault.strerror}") from fault
    return left == 0 and digest.hexdigest() == file.sha256[number]


def _digest(block: list[memoryview]) -> str:
    digest = hashlib.sha256()
    for view in block:
        digest.update(view)
    return digest.hexdigest()
