"""Digests that identify a dataset and the weights of a part of a model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gearshift.models.base import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from gearshift.engines.base import State, World
    from gearshift.training.data.samples import Samples


_PROBES = 16


def fingerprint(samples: Samples, world: World) -> str:
    """A digest of the number of samples and of 16 of them, including the first and the last.

    It changes if the dataset grows, shrinks or is reordered, but not with every single sample. Rank
    0 reads the samples. Collective.
    """
    digest = hashlib.sha256(f"{len(samples)}".encode())
    for index in probes(len(samples)) if world.rank == 0 else ():
        sample = samples[0, [index]]
        # An unreadable sample is part of the data too; `data.on_bad` handles it elsewhere.
        add(digest, str(sample) if isinstance(sample, DataError) else sample.batch)
    return world.broadcast(digest.digest()[:16]).hex()


def probes(length: int) -> list[int]:
    """At most 16 evenly spaced positions, from the first to the last of `length`."""
    return np.unique(np.linspace(0, length - 1, min(_PROBES, length)).astype(np.int64)).tolist()


def add(digest: Any, value: Any) -> None:
    """Update the hashlib `digest` with mappings, lists and tensors in `value`."""
    if isinstance(value, Mapping):
        for key in sorted(value):
            digest.update(f"{key}:".encode())
            add(digest, value[key])
    elif isinstance(value, list | tuple):
        for inner in value:
            add(digest, inner)
    elif isinstance(value, torch.Tensor):
        digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
        # A copy: tensors with one element count as contiguous with any strides.
        whole = value.clone(memory_format=torch.contiguous_format)
        digest.update(whole.view(-1).view(torch.uint8).numpy())
    else:
        digest.update(f"{value!r};".encode())


_AT_ONCE = 2**16
# 2⁶⁴ over the golden ratio, as a signed number: Knuth, The Art of Computer Programming, 6.4.
_MIX = 0x9E3779B97F4A7C15 - 2**64


def weights_digest(state: State, part: str, world: World) -> str:
    """A digest of all weights and buffers below `part`, for any sharding. Collective.

    A sum over elements, each mixed with its position, so that ranks may hold any intervals.
    """
    total = torch.zeros((), dtype=torch.int64)
    for piece in state.pieces:
        if piece.kind != "weight" or not piece.name.startswith(f"{part}."):
            continue
        if piece.replica[0] == 0:
            total += _of(piece.data, piece.start, piece.name)
    over_ranks = int(world.sum(total.to(world.device)))
    sha256 = hashlib.sha256(f"{over_ranks}".encode())
    add(sha256, {n: b.cpu() for n, b in state.buffers.items() if n.startswith(f"{part}.")})
    return sha256.hexdigest()[:32]


def _of(data: Tensor, start: int, name: str) -> Tensor:
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")
    total = torch.zeros((), dtype=torch.int64)
    for first in range(0, data.numel(), _AT_ONCE):
        part = data[first : first + _AT_ONCE].detach().float().cpu()
        factors = (torch.arange(len(part)) + (start + first + key)).mul_(_MIX)
        # Products alone are linear: tensors with the same values in another order could change places.
        factors.bitwise_xor_(factors >> 31).mul_(_MIX)
        # Odd factors: any change of one element changes the sum.
        total += (part.view(torch.int32).long() * factors.bitwise_or_(1)).sum()
    return total
