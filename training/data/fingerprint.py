"""What tells one dataset from another without reading all of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from models.base import DataError

if TYPE_CHECKING:
    from engines.base import World
    from training.data.samples import Samples

_PROBES = 16


def fingerprint(samples: Samples, world: World) -> str:
    """A digest of the number of samples and of some of them, the first and the last among these.

    A dataset that grew, shrank, or lost its order has another one; a change of single samples may
    go unseen. Rank 0 reads the samples; collective.
    """
    return world.broadcast(_digest(samples) if world.rank == 0 else None).hex()


def probes(length: int) -> list[int]:
    """Positions spread evenly from the first to the last of `length`, at most 16."""
    return sorted(set(np.linspace(0, length - 1, _PROBES).astype(np.int64).tolist()))


def _digest(samples: Samples) -> bytes:
    digest = hashlib.sha256(f"{len(samples)}".encode())
    for index in probes(len(samples)):
        found = samples[0, [index]]
        # One that cannot be read is part of the data, too; what to do about it is not decided here.
        add(digest, str(found) if isinstance(found, DataError) else found.batch)
    return digest.digest()[:16]


def add(digest: Any, value: Any) -> None:
    """Update `digest`, one of hashlib's, by all that `value` holds: mappings, lists, tensors."""
    if isinstance(value, Mapping):
        for key in sorted(value):
            digest.update(f"{key}:".encode())
            add(digest, value[key])
    elif isinstance(value, list | tuple):
        for inner in value:
            add(digest, inner)
    elif isinstance(value, torch.Tensor):
        digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
        # A copy: what has one element only counts as contiguous, whatever its strides are.
        whole = value.clone(memory_format=torch.contiguous_format)
        digest.update(whole.view(-1).view(torch.uint8).numpy())
    else:
        digest.update(f"{value!r};".encode())
