"""Files with a checksum per block: written in one pass, verified by several threads."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from training.checkpoint.manifest import BLOCK_BYTES, CheckpointError, CheckpointFile, read_error
from training.storage import storage_errors

_THREADS = 4
_READ_BYTES = 2**20


class BlockWriter:
    """Writes a new file and computes its checksums; holds no data.

    Syncs the file to the device on exit. Touches disk. Raises StorageError.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._bytes = 0
        self._checksums: list[int] = []

    def __enter__(self) -> BlockWriter:
        with storage_errors(self._path):
            self._stream = self._path.open("xb", buffering=0)
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if error is None:
                with storage_errors(self._path):
                    os.fsync(self._stream.fileno())
        finally:
            self._stream.close()

    def write(self, data: memoryview | bytes) -> None:
        """Append `data`, bytes one by one (a memoryview of format "B")."""
        rest = memoryview(data)
        while rest:
            filled = self._bytes % BLOCK_BYTES
            if not filled:
                self._checksums.append(0)
            part, rest = rest[: BLOCK_BYTES - filled], rest[BLOCK_BYTES - filled :]
            self._checksums[-1] = zlib.crc32(part, self._checksums[-1])
            self._bytes += len(part)
            with storage_errors(self._path):
                while part:
                    part = part[self._stream.write(part) :]

    def file(self) -> CheckpointFile:
        """Name, size and checksums of the file; after the exit."""
        return CheckpointFile(self._path.name, self._bytes, tuple(self._checksums))


def check(folder: Path, files: tuple[CheckpointFile, ...], part: int = 0, parts: int = 1) -> None:
    """Compare the blocks of `files` with their checksums; with `parts`, every `parts`-th block.

    Raises CheckpointError with the first wrong file and offset. Touches disk.
    """
    blocks = [(file, number) for file in files for number in range(len(file.checksums))]
    with ThreadPoolExecutor(_THREADS, "checksum") as pool:
        results = pool.map(lambda block: _is_whole(folder, *block), blocks[part::parts])
        for (file, number), is_whole in zip(blocks[part::parts], results, strict=True):
            if not is_whole:
                raise CheckpointError(
                    f"{folder / file.name} is damaged: wrong checksum of the block at byte"
                    f" {number * BLOCK_BYTES}"
                )


def _is_whole(folder: Path, file: CheckpointFile, number: int) -> bool:
    # Read, not mapped: an unreadable sector would kill the process.
    checksum, buffer = _CHECKSUMS[file.algorithm](), memoryview(bytearray(_READ_BYTES))
    start = number * BLOCK_BYTES
    left = min(BLOCK_BYTES, file.bytes - start)
    try:
        with (folder / file.name).open("rb", buffering=0) as stream:
            stream.seek(start)
            while left and (count := stream.readinto(buffer[:left])):
                checksum.update(buffer[:count])
                left -= count
    except OSError as error:
        raise read_error(folder / file.name, error) from error
    return left == 0 and int(checksum.hexdigest(), 16) == file.checksums[number]


class _Crc32:
    """CRC-32 with the interface of hashlib."""

    def __init__(self) -> None:
        self._value = 0

    def update(self, data: memoryview) -> None:
        self._value = zlib.crc32(data, self._value)

    def hexdigest(self) -> str:
        return f"{self._value:08x}"


_CHECKSUMS: dict[str, Callable[[], Any]] = {"crc32": _Crc32, "sha256": hashlib.sha256}
