"""A digest of a part of a model, the same however an engine has cut it up."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch

from training.data.fingerprint import add

if TYPE_CHECKING:
    from torch import Tensor

    from engines.base import State, World

_AT_ONCE = 2**16
_MIX = 0x9E3779B97F4A7C15 - 2**64
"""2⁶⁴ over the golden ratio, as a signed number: Knuth, The Art of Computer Programming, 6.4."""


def digest(state: State, part: str, world: World) -> str:
    """Of all weights and buffers whose names begin with `part` and a dot. Collective.

    A sum over elements, each mixed with its place, so that ranks may hold any part of it.
    """
    own = torch.zeros((), dtype=torch.int64)
    for piece in state.pieces:
        if piece.kind != "weight" or not piece.name.startswith(f"{part}."):
            continue
        if world.rank == 0 or not piece.replicated:
            own += _of(piece.data, piece.start, piece.name)
    total = int(world.sum(own.to(world.device)))
    found = hashlib.sha256(f"{total}".encode())
    add(found, {n: b.cpu() for n, b in state.buffers.items() if n.startswith(f"{part}.")})
    return found.hexdigest()[:32]


def _of(data: Tensor, start: int, name: str) -> Tensor:
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")
    total = torch.zeros((), dtype=torch.int64)
    for first in range(0, data.numel(), _AT_ONCE):
        part = data[first : first + _AT_ONCE].detach().float().cpu()
        places = torch.arange(len(part)) + (start + first + key)
        mixed = part.view(torch.int32).long().add_(1).mul_(places.mul_(2).add_(1))
        mixed ^= mixed >> 29
        mixed.mul_(_MIX)
        total += (mixed ^ (mixed >> 32)).sum()
    return total
