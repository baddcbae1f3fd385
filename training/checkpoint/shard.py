"""One rank's file: flat intervals of tensors as safetensors, written without copying them all."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from engines.base import State, kind_shape
from training.checkpoint import tensor_file
from training.checkpoint.blocks import BlockWriter
from training.checkpoint.manifest import File
from training.checkpoint.tensor_file import Entry

if TYPE_CHECKING:
    from torch import Tensor

BUFFER = "buffer"
"""The kind of what is no parameter; its intervals keep the buffer's own dtype."""
_STAGING_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Interval:
    """A run of elements of a flattened tensor, to be written."""

    kind: str
    name: str
    start: int
    data: Tensor
    """Flat; on any device."""
    dtype: torch.dtype
    """What it is written as."""

    @property
    def key(self) -> str:
        """`weight|blocks.0.norm|1024`: kind, name, first element."""
        return f"{self.kind}|{self.name}|{self.start}"

    @property
    def bytes(self) -> int:
        """Bytes on disk."""
        return self.data.numel() * self.dtype.itemsize


def parse_key(key: str) -> tuple[str, str, int]:
    """Kind, name and first element. Raises ValueError."""
    kind, rest = key.split("|", 1)
    name, start = rest.rsplit("|", 1)
    # int() takes signs, blanks and digits of other scripts too.
    if not (start.isascii() and start.isdecimal()):
        raise ValueError(f"{key!r:.100} does not end in the number of an element")
    return kind, name, int(start)


def share(state: State, rank: int, world_size: int) -> list[Interval]:
    """What `rank` writes: its own pieces, an even part of each replicated one; rank 0 the buffers.

    Parameters and slots are written as fp32, buffers as they are.
    """
    intervals = []
    for piece in state.pieces:
        flat = piece.data.detach().reshape(-1)
        first, last = 0, flat.numel()
        if piece.replicated:
            first, last = last * rank // world_size, last * (rank + 1) // world_size
        is_empty = prod(kind_shape(piece.kind, state.shapes[piece.name])) == 0
        if last > first or (is_empty and rank == 0):
            interval = Interval(
                piece.kind, piece.name, piece.start + first, flat[first:last], torch.float32
            )
            intervals.append(interval)
    if rank == 0:
        # The widest first: each then lies at a multiple of its own width, for those who map files.
        for name, buffer in sorted(state.buffers.items(), key=lambda pair: -pair[1].itemsize):
            flat = buffer.detach().reshape(-1)
            intervals.append(Interval(BUFFER, name, 0, flat, flat.dtype))
    return intervals


def head(intervals: Sequence[Interval], steps: Mapping[str, float]) -> bytes:
    """The first bytes of the file of `intervals`, in their order; `steps` by parameter.

    Raises CheckpointError where the format has no name for a dtype.
    """
    entries = [Entry(i.key, i.dtype, (i.data.numel(),)) for i in intervals]
    counts = {name: float(count) for name, count in steps.items()}
    return tensor_file.head(entries, {"steps": json.dumps(counts)})


def write(path: Path, first: bytes, intervals: Sequence[Interval]) -> File:
    """Write a file of `first`, its head, and the numbers of `intervals`, and tell what it is.

    One staging buffer is copied at a time. Touches disk. Raises StorageError.
    """
    with BlockWriter(path) as writer:
        writer.write(first)
        for interval in intervals:
            for part in _on_host(interval):
                writer.write(part.view(torch.uint8).numpy().data)
    return writer.file()


def _on_host(interval: Interval) -> Iterator[Tensor]:
    step = _STAGING_BYTES // interval.dtype.itemsize
    for first in range(0, interval.data.numel(), step):
        # On a CPU and in its dtype already, this is a view.
        yield interval.data[first : first + step].to("cpu", interval.dtype).contiguous()
