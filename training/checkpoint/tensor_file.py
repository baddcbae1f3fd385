"""Safetensors files: the head, and one rank's flat intervals of tensors."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open

from gearshift.engines.base import Piece, State, kind_shape
from gearshift.training.callbacks.base import Numbers
from gearshift.training.checkpoint.manifest import CheckpointError, CheckpointFile, write_file

if TYPE_CHECKING:
    from torch import Tensor


WEIGHT = "weight"
"""The kind of parameters; optimizer slots are kinds too."""
EMA = "ema"
"""The kind of the moving average of parameters."""
BUFFER = "buffer"
"""The kind of buffers, which keep their own dtype."""
_STAGING_ELEMENTS = 4 * 2**20
# int() would accept signs, spaces and digits of other scripts too.
_KEY = re.compile(r"([^|]*)\|(.*)\|([0-9]{1,19})", re.DOTALL)


def file_dtype(piece: Piece) -> torch.dtype:
    """The dtype of a piece in the file: of parameters and slots fp32, or its own wider one."""
    dtype = piece.data.dtype
    is_exact = piece.kind == BUFFER or dtype.itemsize >= torch.float32.itemsize
    return dtype if is_exact else torch.float32


def file_bytes(piece: Piece) -> int:
    return piece.data.numel() * file_dtype(piece).itemsize


def parse_key(key: str) -> tuple[str, str, int]:
    """Kind, name and first element. Raises ValueError."""
    match = _KEY.fullmatch(key)
    if match is None:
        raise ValueError(f"{key!r:.100} is not a kind, a name and the index of an element")
    return match[1], match[2], int(match[3])


def rank_pieces(state: State, rank: int) -> list[Piece]:
    """What `rank` writes: its pieces, an even part of those with replicas; rank 0 also buffers."""
    pieces = []
    for piece in state.pieces:
        flat = piece.data.detach().reshape(-1)
        replica, replicas = piece.replica
        size = flat.numel()
        first = size * replica // replicas
        last = size * (replica + 1) // replicas
        is_empty = prod(kind_shape(piece.kind, state.shapes[piece.name])) == 0
        if last > first or (is_empty and rank == 0):
            pieces.append(
                Piece(
                    piece.kind,
                    piece.name,
                    piece.start + first,
                    flat[first:last],
                )
            )
    # The widest first: each is then aligned to its width, for readers that map the file or read
    # whole elements of a block.
    pieces.sort(key=lambda piece: -file_dtype(piece).itemsize)
    if rank == 0:
        for name, buffer in sorted(state.buffers.items(), key=lambda pair: -pair[1].itemsize):
            pieces.append(Piece(BUFFER, name, 0, buffer.detach().reshape(-1)))
    return pieces


def rank_head(pieces: Sequence[Piece], steps: Numbers) -> bytes:
    """The head of the file of `pieces`, in their order; `steps` by parameter.

    A key is `weight|blocks.0.norm|1024`: kind, name, first element. Raises CheckpointError for a
    dtype that the format does not support.
    """
    entries = {}
    for piece in pieces:
        key = f"{piece.kind}|{piece.name}|{piece.start}"
        entries[key] = file_dtype(piece), (piece.data.numel(),)
    counts = {name: float(count) for name, count in steps.items()}
    return file_head(entries, {"steps": json.dumps(counts)})


def write_rank_file(path: Path, first: bytes, pieces: Sequence[Piece]) -> CheckpointFile:
    """Write a file of the head `first` and the elements of `pieces`. Raises StorageError.

    Copies a few million elements at a time. Touches disk.
    """

    def chunks() -> Iterator[bytes | memoryview]:
        yield first
        for piece in pieces:
            for part in piece.data.split(_STAGING_ELEMENTS):
                # A view if it is on the CPU in its dtype already.
                yield as_bytes(part.to("cpu", file_dtype(piece)))

    return write_file(path, chunks())


def as_bytes(tensor: Tensor) -> memoryview:
    """The memory of `tensor`, which is on the CPU; a copy unless it is contiguous."""
    return tensor.detach().contiguous().view(torch.uint8).numpy().data


DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""The dtypes that a checkpoint can hold, with their names in the safetensors format."""
_BY_NAME = {name: dtype for dtype, name in DTYPES.items()}
_METADATA = "__metadata__"
# The length of the text in bytes, little-endian.
_LENGTH_BYTES = 8


Form = tuple[torch.dtype, Sequence[int]]
"""Dtype and shape of a tensor in a file."""


def file_head(entries: Mapping[str, Form], metadata: Mapping[str, str]) -> bytes:
    """The first bytes of a file whose numbers follow in the order of `entries`, without gaps.

    Raises CheckpointError where the format has no name for a dtype. Source: the safetensors
    format, github.com/huggingface/safetensors.
    """
    table: dict[str, object] = {_METADATA: dict(metadata)}
    end = 0
    for key, (dtype, shape) in entries.items():
        if dtype not in DTYPES:
            raise CheckpointError(f"{key}: {dtype} cannot be saved")
        begin = end
        end = end + prod(shape) * dtype.itemsize
        table[key] = {
            "dtype": DTYPES[dtype],
            "shape": list(shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(table, separators=(",", ":")).encode()
    # Padded, so that the numbers behind it are aligned for those who map the file.
    text += b" " * (-len(text) % _LENGTH_BYTES)
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text


def read_head(path: Path) -> tuple[dict[str, tuple[Form, int]], Mapping[str, str]]:
    """The tensors of the untrusted file `path`, each with its offset, and the metadata.

    Touches disk. Raises OSError, and SafetensorError unless the tensors follow one another from the
    end of the head to the end of the file; ValueError or KeyError for a dtype that torch lacks.
    """
    # The library checks the head, and hides the offsets.
    with safe_open(path, "pt"), path.open("rb") as stream:
        length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
        table = json.loads(stream.read(length))
    metadata = table.pop(_METADATA, {})
    entries = {}
    for key, fields in table.items():
        form = _BY_NAME[fields["dtype"]], fields["shape"]
        entries[key] = form, _LENGTH_BYTES + length + fields["data_offsets"][0]
    return entries, metadata
