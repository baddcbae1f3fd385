"""Reads of tensors from the files of a checkpoint: blocks are checked as they are read."""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterable
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
    """The blocks of a checkpoint that have the elements of some pieces; `run` reads them.

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

        Reads each block once, in bounded memory. After an error, pieces may have been overwritten
        in part. Raises CheckpointDamaged for a wrong checksum, and CheckpointError for a weight
        that is not finite or an unreadable file. Touches disk.
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
        kind = piece.kind
        name = piece.name
        flat = piece.data.detach()
        dtype = self._checkpoint.dtype(kind, name)
        width = dtype.itemsize
        last_element = piece.start + flat.numel()
        places = self._checkpoint.located(kind, name, piece.start, last_element)
        for file, offset, first, last in places:
            values = flat[first - piece.start : last - piece.start]
            stop = offset + len(values) * width
            self.needed_bytes += stop - offset
            # The interval may go on in the next blocks.
            start = offset
            while start < stop:
                block = self._block(file, start // manifest.BLOCK_BYTES)
                cut = min(stop, block.stop)
                if kind != BUFFER:
                    elements = values[(start - offset) // width : (cut - offset) // width]
                    block.parts.append(_Part(start, cut, kind, name, dtype, elements))
                start = cut

    def _block(self, name: str, number: int) -> _Block:
        if (name, number) not in self._blocks:
            file = self._files[name]
            start = number * manifest.BLOCK_BYTES
            stop = min(file.bytes, start + manifest.BLOCK_BYTES)
            self._blocks[name, number] = _Block(
                name,
                start,
                stop,
                file.crc32[number],
            )
        return self._blocks[name, number]

    def _read(self, block: _Block) -> Placed:
        """Read one block; of targets that are not plain host memory, the values come back."""
        path = self._checkpoint.folder / block.file
        block.parts.sort(key=lambda part: part.start)
        memory = [_host_memory(part) for part in block.parts]
        checksum = 0
        position = block.start
        try:
            with path.open("rb", buffering=0) as stream:
                stream.seek(position)
                for part, values in zip(block.parts, memory, strict=True):
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

        placed = []
        for part, values in zip(block.parts, memory, strict=True):
            if part.kind in (WEIGHT, EMA):
                self._checkpoint.check_weight(part.name, values, block.file)
            if values is not part.target:
                placed.append((part.target, values))
        return placed


def _host_memory(part: _Part) -> Tensor:
    """The target itself, if its memory has what the file has; or else new memory."""
    target = part.target
    is_plain = type(target) is Tensor and target.device.type == "cpu" and target.is_contiguous()
    if is_plain and target.dtype == part.dtype:
        return target
    return torch.empty(target.numel(), dtype=part.dtype)


def _fill(stream: FileIO, memory: memoryview, checksum: int) -> int:
    """Read into `memory`; the checksum of what was read before and of that."""
    for start in range(0, len(memory), _AT_ONCE):
        chunk = memory[start : start + _AT_ONCE]
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
