"""The weights of a checkpoint as one plain safetensors file, as other programs read them."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path

import torch

from training.checkpoint import tensor_file
from training.checkpoint.checksums import BlockWriter
from training.checkpoint.manifest import CheckpointFile
from training.checkpoint.reader import Checkpoint
from training.checkpoint.tensor_file import BUFFER, WEIGHT

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
    special = set(source.names(kind))
    kinds = [(kind if name in special else WEIGHT, name) for name in source.shapes]
    kinds += [(BUFFER, name) for name in source.buffer_shapes]
    if names is None:
        names = {name: name for _, name in kinds}
    chosen = {key: names[key[1]] for key in kinds if key[1] in names}
    # The widest first, as readers map the file.
    stored = sorted(chosen, key=lambda key: -source.dtype(*key).itemsize)
    entries = {chosen[key]: (source.dtype(*key), source.shape(*key)) for key in stored}
    # Readers of other libraries look for "format".
    facts = {"format": "pt", "kind": kind, "step": str(source.manifest.step)}
    with BlockWriter(path) as writer:
        writer.write(tensor_file.file_head(entries, facts))
        for key in stored:
            count, step = prod(source.shape(*key)), _PART_BYTES // source.dtype(*key).itemsize
            for start in range(0, count, step):
                part = source.interval(*key, start, min(start + step, count))
                writer.write(part.contiguous().view(torch.uint8).numpy().data)
    return writer.file()
