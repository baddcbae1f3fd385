"""Safetensors files: the head, and one rank's flat intervals of tensors."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from engines.base import State, kind_shape
from training.checkpoint.checksums import BlockWriter
from training.checkpoint.manifest import CheckpointError, CheckpointFile

if TYPE_CHECKING:
    from torch import Tensor


WEIGHT = "weight"
"""The kind of parameters; optimizer slots are kinds too."""
EMA = "ema"
"""The kind of the moving average of parameters."""
BUFFER = "buffer"
"""The kind of buffers, which keep their own dtype."""
_STAGING_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Interval:
    """Consecutive elements of a flattened tensor, to be written."""

    kind: str
    name: str
    start: int
    data: Tensor
    """Flat; on any device."""
    dtype: torch.dtype
    """The dtype in the file."""

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
    # int() accepts signs, spaces and digits of other scripts too.
    if not (start.isascii() and start.isdecimal()):
        raise ValueError(f"{key!r:.100} does not end in the index of an element")
    return kind, name, int(start)


def rank_intervals(state: State, rank: int) -> list[Interval]:
    """The intervals that `rank` writes: its own pieces, an even part of each that has replicas.

    Rank 0 also writes the buffers, in their own dtype; parameters and slots are written as fp32.
    """
    intervals = []
    for piece in state.pieces:
        flat = piece.data.detach().reshape(-1)
        (replica, replicas), size = piece.replica, flat.numel()
        first, last = size * replica // replicas, size * (replica + 1) // replicas
        is_empty = prod(kind_shape(piece.kind, state.shapes[piece.name])) == 0
        if last > first or (is_empty and rank == 0):
            interval = Interval(
                piece.kind, piece.name, piece.start + first, flat[first:last], torch.float32
            )
            intervals.append(interval)
    if rank == 0:
        # The widest first: each is then aligned to its width, for readers that map the file.
        for name, buffer in sorted(state.buffers.items(), key=lambda pair: -pair[1].itemsize):
            flat = buffer.detach().reshape(-1)
            intervals.append(Interval(BUFFER, name, 0, flat, flat.dtype))
    return intervals


def rank_head(intervals: Sequence[Interval], steps: Mapping[str, float]) -> bytes:
    """The head of the file of `intervals`, in their order; `steps` by parameter.

    Raises CheckpointError for a dtype that the format does not support.
    """
    entries = [TensorEntry(i.key, i.dtype, (i.data.numel(),)) for i in intervals]
    counts = {name: float(count) for name, count in steps.items()}
    return file_head(entries, {"steps": json.dumps(counts)})


def write_rank_file(path: Path, first: bytes, intervals: Sequence[Interval]) -> CheckpointFile:
    """Write a file of the head `first` and the elements of `intervals`.

    Copies one staging buffer at a time. Touches disk. Raises StorageError.
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
        # A view if it is on the CPU in its dtype already.
        yield interval.data[first : first + step].to("cpu", interval.dtype).contiguous()


# The dtypes of the safetensors format.
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
_BY_NAME = {name: dtype for dtype, name in _DTYPES.items()}
_METADATA = "__metadata__"
# The length of the text in bytes, little-endian.
_LENGTH_BYTES = 8
# What the safetensors library reads at most.
_LONGEST = 100_000_000


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of a file."""

    key: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Bytes of its elements."""
        return prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class TensorHead:
    """The head of a file."""

    entries: Mapping[str, tuple[TensorEntry, int]]
    """By key, with the offset of its first byte in the file."""
    metadata: Mapping[str, str]


def file_head(entries: Iterable[TensorEntry], metadata: Mapping[str, str]) -> bytes:
    """The first bytes of a file whose numbers follow in the order of `entries`, without gaps.

    Raises CheckpointError where the format has no name for a dtype. Source: the safetensors
    format, github.com/huggingface/safetensors.
    """
    table: dict[str, object] = {_METADATA: dict(metadata)}
    end = 0
    for entry in entries:
        if entry.dtype not in _DTYPES:
            raise CheckpointError(f"{entry.key}: {entry.dtype} cannot be saved")
        begin, end = end, end + entry.bytes
        table[entry.key] = {
            "dtype": _DTYPES[entry.dtype],
            "shape": list(entry.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(table, separators=(",", ":")).encode()
    # Padded, so that the numbers behind it are aligned for those who map the file.
    text += b" " * (-len(text) % _LENGTH_BYTES)
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text


def read_head(path: Path) -> TensorHead:
    """Read and validate the head of the untrusted file `path`. Touches disk.

    Raises OSError, and ValueError unless the tensors follow one another from the end of the head
    to the end of the file.
    """
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
        first = _LENGTH_BYTES + length
        if first > size or length > _LONGEST:
            raise ValueError(f"a head of {length} bytes in a file of {size}")
        table = json.loads(stream.read(length), object_pairs_hook=_once, parse_constant=_refuse)
    if not isinstance(table, dict):
        raise ValueError("its head is not a table of tensors")
    metadata = table.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ValueError(f"{metadata!r:.100} instead of strings by name")
    placed = [(*_entry(key, fields), key) for key, fields in table.items()]
    end = 0
    for entry, begin, stop, key in sorted(placed, key=lambda entry: entry[1:3]):
        if begin != end or stop - begin != entry.bytes:
            raise ValueError(f"{key} does not start at the end of the tensor before it, or is cut")
        end = stop
    if first + end != size:
        raise ValueError(f"{size - first} bytes of tensors, and its head lists {end}")
    return TensorHead({key: (entry, first + begin) for entry, begin, _, key in placed}, metadata)


def _entry(key: str, fields: Any) -> tuple[TensorEntry, int, int]:
    begin, stop = (_count(value) for value in fields["data_offsets"])
    shape = tuple(_count(axis) for axis in fields["shape"])
    if fields["dtype"] not in _BY_NAME:
        raise ValueError(f"{key} has the unknown type {fields['dtype']!r:.100}")
    return TensorEntry(key, _BY_NAME[fields["dtype"]], shape), begin, stop


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError(f"{value!r:.100} is not a count")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("duplicate name")
    return table


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")
