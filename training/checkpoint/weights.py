"""The weights of a checkpoint as one plain safetensors file, as other programs read them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch

from training.checkpoint import manifest, tensor_file
from training.checkpoint.checksums import BlockWriter
from training.checkpoint.manifest import CheckpointFile
from training.checkpoint.reader import Checkpoint
from training.checkpoint.tensor_file import BUFFER, WEIGHT, TensorEntry

_PART_BYTES = 4 * 2**20


def write_weights(
    source: Checkpoint, path: Path, kind: str = WEIGHT, names: Mapping[str, str] | None = None
) -> CheckpointFile:
    """Write parameters and buffers of `source` to the new file `path`.

    Names and shapes are those of the model, tied weights appear once, parameters are fp32, buffers
    keep their dtype. With another `kind`, such as "ema", parameters that have it are written with
    it, and others (frozen ones) with their weights. `names` selects tensors and renames them. Holds
    a few MiB at a time. Touches disk. Raises CheckpointError, StorageError.
    """
    stored = [t for t in _stored(source, kind) if names is None or t.name in names]
    entries = (TensorEntry(names[s.name] if names else s.name, s.dtype, s.shape) for s in stored)
    # Readers of other libraries look for "format".
    facts = {"format": "pt", "kind": kind, "step": str(source.manifest.step)}
    with BlockWriter(path) as writer:
        writer.write(tensor_file.file_head(entries, facts))
        for tensor in stored:
            count, step = prod(tensor.shape), _PART_BYTES // tensor.dtype.itemsize
            for start in range(0, count, step):
                end = min(start + step, count)
                part = source.interval(tensor.kind, tensor.name, start, end)
                writer.write(part.contiguous().view(torch.uint8).numpy().data)
    return writer.file()


def write_sharded(
    source: Checkpoint, folder: Path, kind: str, names: Mapping[str, str], limit_bytes: int
) -> list[CheckpointFile]:
    """As write_weights, in the files that Hugging Face libraries expect in a folder.

    One model.safetensors, or several of at most `limit_bytes` (unless a tensor is larger) with an
    index of tensors. Touches disk.
    """
    shards: list[list[_Selected]] = [[]]
    room = limit_bytes
    for tensor in (t for t in _stored(source, kind) if t.name in names):
        if shards[-1] and tensor.bytes > room:
            shards.append([])
            room = limit_bytes
        shards[-1].append(tensor)
        room -= tensor.bytes
    if len(shards) == 1:
        return [write_weights(source, folder / manifest.MODEL, kind, names)]
    files, where = [], {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        renamed = {t.name: names[t.name] for t in shard}
        files.append(write_weights(source, folder / name, kind, renamed))
        where.update(dict.fromkeys(renamed.values(), name))
    total = sum(t.bytes for shard in shards for t in shard)
    index = {"metadata": {"total_size": total}, "weight_map": where}
    with BlockWriter(folder / f"{manifest.MODEL}.index.json") as writer:
        writer.write(json.dumps(index, indent=2, sort_keys=True).encode())
    return [*files, writer.file()]


@dataclass(frozen=True)
class _Selected:
    """One tensor, and the kind to read it from."""

    kind: str
    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


def _stored(source: Checkpoint, kind: str) -> list[_Selected]:
    """The tensors to write, the widest first, as readers map the file."""
    special = set(source.names(kind))
    tensors = [
        _Selected(kind if name in special else WEIGHT, name, torch.float32, tuple(shape))
        for name, shape in source.shapes.items()
    ]
    for name, shape in source.buffer_shapes.items():
        dtype = source.dtype(BUFFER, name)
        tensors.append(_Selected(BUFFER, name, dtype, tuple(shape)))
    return sorted(tensors, key=lambda tensor: -tensor.dtype.itemsize)
