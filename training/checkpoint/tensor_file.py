"""The head of a safetensors file: which tensor lies where."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

import torch

from training.checkpoint.manifest import CheckpointError

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
class Entry:
    """One tensor of a file."""

    key: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Bytes of its numbers."""
        return prod(self.shape) * self.dtype.itemsize


def head(entries: Iterable[Entry], metadata: Mapping[str, str]) -> bytes:
    """The first bytes of a file whose numbers follow in the order of `entries`, without gaps.

    Raises CheckpointError where the format has no name for a dtype. Source: the safetensors
    format, github.com/huggingface/safetensors.
    """
    table: dict[str, object] = {"__metadata__": dict(metadata)}
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
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
