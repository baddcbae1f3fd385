"""Reads of tensors from the files of a checkpoint: a block is checked as it is read into its place."""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from io import FileIO
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from gearshift.training.checkpoint import manifest
from gearshift.training.checkpoint.manifest import CheckpointDamaged, CheckpointError, read_error
from gearshift.training.checkpoint.tensor_file import BUFFER, EMA, WEIGHT, as_bytes

if TYPE_CHECKING:
    from gearshift.engines.base import Piece
    from gearshift.training.checkpoint.reader import Checkpoint

_THREADS = 4
_BLOCKS_AHEAD = 6
# Bytes that are read and then checked while they are in the cache of the processor.
_AT_ONCE = 2**20


class _Part(NamedTuple):
    """Bytes [start, stop) of a file, and the flat tensor that they are elements of."""

    start: int
    stop: int
    kind: str
    name: str
    dtype: torch.dtype
    target: Tensor


@dataclass
class _Block:
    """Bytes [start, stop) of a file that have one checksum."""

    file: str
    start: int
    stop: int
    checksum: int
    parts: list[_Part] = field(default_factory=list)


Placed = list[tuple[Tensor, Tensor]]
"""Targets with values that are not in their place yet."""


class BlockReads:
    """The blocks of a checkpoint that have the elements of some pieces; nothing is read before `run`.

    Those of a buffer, whose elements may lie in two blocks, are checked, and not read into it.
    """

    def __init__(self, checkpoint: Checkpoint, pieces: Iterable[Piece]) -> None:
        """Raises KeyError for a tensor that the checkpoint does not have."""
        self._checkpoint = checkpoint
        self._blocks: dict[tuple[str, int], _Block] = {}
        self._files = {file.name: file for file in checkpoint.manifest.files}
        self.needed_bytes = 0
        """Of the elements."""
        for piece in pieces:
            self._add(piece)

    @property
    def block_bytes(self) -> int:
        """Of the whole blocks, which have to be read to be checked."""
        return sum(block.stop - block.start for block in self._blocks.values())

    def run(self) -> None:
        """Read the elements into their pieces, and compare their blocks with the checksums.

        Reads each block once, in bounded memory. After an error, pieces may have been overwritten in
        part. Raises CheckpointDamaged for a wrong checksum, and CheckpointError for a weight that is
        not finite or an unreadable file. Touches disk.
        """
        waiting: deque[Future[Placed]] = deque()
        with ThreadPoolExecutor(_THREADS, "load") as pool:
            for key in sorted(self._blocks):
                waiting.append(pool.submit(self._read, self._blocks[key]))
                if len(waiting) > _BLOCKS_AHEAD:
                    _place(waiting.popleft().result())
            while waiting:
                _place(waiting.popleft().result())

    def _add(self, piece: Piece) -> None:
        flat = piece.data.detach()
        size = manifest.BLOCK_BYTES
        dtype = self._checkpoint.dtype(piece.kind, piece.name)
        stop = piece.start + flat.numel()
        for file, offset, first, last in self._checkpoint.located(
            piece.kind, piece.name, piece.start, stop
        ):
            begin = offset
            end = offset + (last - first) * dtype.itemsize
            self.needed_bytes += end - begin
            held = flat[first - piece.start : last - piece.start]
            while begin < end:
                number = begin // size
                cut = min(end, (number + 1) * size)
                block = self._block(file, number)
                if piece.kind != BUFFER:
                    elements = slice(
                        (begin - offset) // dtype.itemsize, (cut - offset) // dtype.itemsize
                    )
                    block.parts.append(
                        _Part(begin, cut, piece.kind, piece.name, dtype, held[elements])
                    )
                begin = cut

    def _block(self, name: str, number: int) -> _Block:
        file = self._files[name]
        start = number * manifest.BLOCK_BYTES
        stop = min(file.bytes, start + manifest.BLOCK_BYTES)
        return self._blocks.setdefault(
            (name, number), _Block(name, start, stop, file.crc32[number])
        )

    def _read(self, block: _Block) -> Placed:
        """Read one block; of targets that are not plain host memory, the values come back."""
        checkpoint = self._checkpoint
        path = self._checkpoint.folder / block.file
        parts = [
            (part, _host_memory(part)) for part in sorted(block.parts, key=lambda part: part.start)
        ]
        checksum = 0
        position = block.start
        try:
            with path.open("rb", buffering=0) as stream:
                stream.seek(block.start)
                for part, values in parts:
                    checksum = _skip(stream, part.start - position, checksum)
                    checksum = _fill(stream, as_bytes(values), checksum)
                    position = part.stop
                checksum = _skip(stream, block.stop - position, checksum)
        except OSError as error:
            raise read_error(path, error) from error
        except EOFError as error:
            raise CheckpointError(f"{path} ended while it was read") from error
        if checksum != block.checksum:
            raise CheckpointDamaged(
                f"{path} is damaged: wrong checksum of the block at byte {block.start}"
            )
        for part, values in parts:
            if part.kind in (WEIGHT, EMA):
                checkpoint.check_weight(part.name, values, block.file)
        return [(part.target, values) for part, values in parts if values is not part.target]


def _host_memory(part: _Part) -> Tensor:
    """The target itself, if its memory has what the file has; or else new memory."""
    target = part.target
    is_plain = type(target) is Tensor and target.device.type == "cpu" and target.is_contiguous()
    if is_plain and target.dtype == part.dtype:
        return target
    return torch.empty(target.numel(), dtype=part.dtype)


def _chunks(memory: memoryview) -> Iterator[memoryview]:
    for start in range(0, len(memory), _AT_ONCE):
        yield memory[start : start + _AT_ONCE]


def _fill(stream: FileIO, memory: memoryview, checksum: int) -> int:
    """Read into `memory`; the checksum of what was read before and of that."""
    for chunk in _chunks(memory):
        rest = chunk
        while rest:
            count = stream.readinto(rest)
            if not count:
                raise EOFError
            rest = rest[count:]
        checksum = zlib.crc32(chunk, checksum)
    return checksum


def _skip(stream: FileIO, count: int, checksum: int) -> int:
    """The checksum of what was read before and of the next `count` bytes."""
    scratch = memoryview(bytearray(min(_AT_ONCE, count)))
    while count:
        chunk = scratch[:count]
        checksum = _fill(stream, chunk, checksum)
        count -= len(chunk)
    return checksum


def _place(placed: Placed) -> None:
    # On the main thread: on another one, CUDA would open a context on device 0.
    for target, values in placed:
        target.copy_(values)
