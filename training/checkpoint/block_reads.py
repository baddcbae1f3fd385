"""Reads of tensors from the files of a checkpoint: blocks are checked as they are read."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from gearshift.training.checkpoint import manifest
from gearshift.training.checkpoint.tensor_file import BUFFER, EMA, WEIGHT

if TYPE_CHECKING:
    from gearshift.engines.base import Piece

_THREADS = 4
_BLOCKS_AHEAD = 6


class _Part(NamedTuple):
    """Bytes of a file from `start`, and the flat tensor that they are elements of."""

    start: int
    kind: str
    name: str
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
"""Targets and the values that they get."""


class BlockReads:
    """The blocks of a checkpoint that have the elements of some pieces; `run` reads them.

    Those of a buffer, whose elements may lie in two blocks, are checked, and not read into it.
    """

    def __init__(self, checkpoint: Any, pieces: Iterable[Piece]) -> None:
        """`checkpoint` is a reader.Checkpoint, whose module imports this one.

        Raises KeyError for a tensor that the checkpoint does not have.
        """
        self._checkpoint = checkpoint
        self._blocks: dict[tuple[str, int], _Block] = {}
        self._checksums = {file.name: file.crc32 for file in checkpoint.manifest.files}
        for piece in pieces:
            self._add(piece)

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
        width = self._checkpoint.dtype(kind, name).itemsize
        last_element = piece.start + flat.numel()
        places = self._checkpoint.located(kind, name, piece.start, last_element)
        for file, offset, first, last in places:
            values = flat[first - piece.start : last - piece.start]
            stop = offset + len(values) * width
            # The interval may go on in the next blocks.
            start = offset
            while start < stop:
                block = self._block(file, start // manifest.BLOCK_BYTES)
                cut = min(stop, block.stop)
                if kind != BUFFER:
                    elements = values[(start - offset) // width : (cut - offset) // width]
                    block.parts.append(_Part(start, kind, name, elements))
                start = cut

    def _block(self, name: str, number: int) -> _Block:
        if (name, number) not in self._blocks:
            start = number * manifest.BLOCK_BYTES
            stop = start + manifest.BLOCK_BYTES
            checksum = self._checksums[name][number]
            self._blocks[name, number] = _Block(name, start, stop, checksum)
        return self._blocks[name, number]

    def _read(self, block: _Block) -> Placed:
        """Read and check one block; the targets and the values of its parts."""
        checkpoint = self._checkpoint
        path = checkpoint.folder / block.file
        data = manifest.read_block(path, block.start, block.checksum)
        placed = []
        for part in block.parts:
            values = torch.frombuffer(
                data,
                dtype=checkpoint.dtype(part.kind, part.name),
                count=len(part.target),
                offset=part.start - block.start,
            )
            if part.kind in (WEIGHT, EMA):
                checkpoint.check_weight(part.name, values, path)
            placed.append((part.target, values))
        return placed


def _place(placed: Placed) -> None:
    # On the main thread: on another one, CUDA would open a context on device 0.
    for target, values in placed:
        target.copy_(values)
