"""One rank's file: flat intervals of tensors as safetensors, written without copying them all."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import torch

from engines.base import State
from training.checkpoint.blocks import BlockWriter
from training.checkpoint.manifest import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

BUFFER = "buffer"
"""The kind of what is no parameter; its intervals keep the buffer's own dtype."""
_STAGING_BYTES = 16 * 2**20
# Names of the safetensors format; what is not here it does not hold.
_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


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
        is_empty = prod(state.shapes[piece.name]) == 0
        if last > first or (is_empty and rank == 0):
            interval = Interval(
                piece.kind, piece.name, piece.start + first, flat[first:last], torch.float32
            )
            intervals.append(interval)
    if rank == 0:
        for name, buffer in state.buffers.items():
            flat = buffer.detach().reshape(-1)
            intervals.append(Interval(BUFFER, name, 0, flat, flat.dtype))
    return intervals


def header(intervals: Sequence[Interval], metadata: Mapping[str, str]) -> bytes:
    """The first bytes of a safetensors file of `intervals`, in their order.

    Raises CheckpointError where the format has no name for a dtype.
    """
    table: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for interval in intervals:
        if interval.dtype not in _DTYPES:
            raise CheckpointError(f"{interval.name}: {interval.dtype} cannot be saved")
        begin, end = end, end + interval.bytes
        table[interval.key] = {
            "dtype": _DTYPES[interval.dtype],
            "shape": [interval.data.numel()],
            "data_offsets": [begin, end],
        }
    text = json.dumps(table, separators=(",", ":")).encode()
    # Padded, so that the numbers behind it are aligned for those who map the file.
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def write(writer: BlockWriter, head: bytes, intervals: Sequence[Interval]) -> None:
    """Append `head` and the numbers of `intervals`; one staging buffer is copied at a time."""
    writer.write(head)
    for interval in intervals:
        for part in _on_host(interval):
            writer.write(part.view(torch.uint8).numpy().data)


def _on_host(interval: Interval) -> Iterator[Tensor]:
    step = _STAGING_BYTES // interval.dtype.itemsize
    for first in range(0, interval.data.numel(), step):
        # On a CPU and in its dtype already, this is a view.
        yield interval.data[first : first + step].to("cpu", interval.dtype).contiguous()
