"""Files with a checksum per block: written in one pass, verified by several threads."""

from __future__ import annotations

import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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
    blocks = [(file, number) for file in files for number in range(len(file.crc32))][part::parts]
    with ThreadPoolExecutor(_THREADS, "checksum") as pool:
        results = pool.map(lambda block: _is_whole(folder, *block), blocks)
        for (file, number), is_whole in zip(blocks, results, strict=True):
            if not is_whole:
                raise CheckpointError(
                    f"{folder / file.name} is damaged: wrong checksum of the block at byte"
                    f" {number * BLOCK_BYTES}"
                )


def _is_whole(folder: Path, file: CheckpointFile, number: int) -> bool:
    # Read, not mapped: an unreadable sector would kill the process.
    checksum, buffer = 0, memoryview(bytearray(_READ_BYTES))
    start = number * BLOCK_BYTES
    left = min(BLOCK_BYTES, file.bytes - start)
    try:
        with (folder / file.name).open("rb", buffering=0) as stream:
            stream.seek(start)
            while left and (count := stream.readinto(buffer[:left])):
                checksum = zlib.crc32(buffer[:count], checksum)
                left -= count
    except OSError as error:
        raise read_error(folder / file.name, error) from error
    return left == 0 and checksum == file.crc32[number]
