"""The weights of a checkpoint as one plain safetensors file, as other programs read them."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from training.checkpoint import tensor_file
from training.checkpoint.blocks import BlockWriter
from training.checkpoint.manifest import File
from training.checkpoint.reader import WEIGHT, Checkpoint
from training.checkpoint.shard import BUFFER
from training.checkpoint.tensor_file import Entry

if TYPE_CHECKING:
    from torch import Tensor

_PART_BYTES = 4 * 2**20


def write_weights(source: Checkpoint, path: Path, kind: str = WEIGHT) -> File:
    """Write parameters and buffers of `source` to the new file `path`, and tell what it holds.

    Names and shapes are the model's own, tied weights stand once, parameters are fp32 and buffers
    as they are. With another `kind`, such as "ema", parameters that have it are written with that,
    and those that do not (frozen ones) with their weights. A few MiB are held at a time. Touches
    disk. Raises CheckpointError, RunFolderError.
    """
    entries = _entries(source, kind)
    first = tensor_file.head((entry for _, entry in entries), _metadata(source, kind))
    with BlockWriter(path) as writer:
        writer.write(first)
        for stored_kind, entry in entries:
            for part in _parts(source, stored_kind, entry):
                writer.write(part.view(torch.uint8).numpy().data)
    return writer.file()


def _entries(source: Checkpoint, kind: str) -> list[tuple[str, Entry]]:
    """Each tensor with the kind it is taken from, the widest first, as readers map the file."""
    special = set(source.names(kind))
    entries = [
        (kind if name in special else WEIGHT, Entry(name, torch.float32, tuple(shape)))
        for name, shape in source.shapes.items()
    ]
    for name, shape in source.buffer_shapes.items():
        entries.append((BUFFER, Entry(name, source.dtype(BUFFER, name), tuple(shape))))
    return sorted(entries, key=lambda one: -one[1].dtype.itemsize)


def _metadata(source: Checkpoint, kind: str) -> dict[str, str]:
    # Readers of other libraries look for "format".
    return {"format": "pt", "kind": kind, "step": str(source.manifest.step)}


def _parts(source: Checkpoint, kind: str, entry: Entry) -> Iterator[Tensor]:
    count, step = prod(entry.shape), _PART_BYTES // entry.dtype.itemsize
    for first in range(0, count, step):
        yield source.interval(kind, entry.key, first, min(first + step, count))
