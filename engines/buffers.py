"""Buffers that training moves: running statistics, counters."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Module

from engines.base import World

Place = tuple[Module, str]
"""The module that holds a buffer, and its name there; the tensor itself may be replaced."""


def stored_buffers(model: Module) -> dict[str, Place]:
    """Where the buffers stand that belong to the state of `model`, by their full name.

    Buffers that a model does not store (persistent=False: tables, masks) are constants.
    """
    return {
        f"{prefix}.{name}" if prefix else name: (module, name)
        for prefix, module in model.named_modules()
        for name, _ in module.named_buffers(recurse=False)
        if name not in module._non_persistent_buffers_set
    }


def read_buffers(places: Mapping[str, Place]) -> dict[str, Tensor]:
    """The live tensors at `places`."""
    return {full: getattr(module, name) for full, (module, name) in places.items()}


def follow_rank_zero(places: Mapping[str, Place], world: World) -> None:
    """Give every rank the buffers of rank 0, as they are after an update. Collective.

    So evaluation is the same on every rank, under every engine.
    """
    if world.size == 1:
        return
    stored = list(read_buffers(places).values())
    for dtype in dict.fromkeys(buffer.dtype for buffer in stored):
        same = [buffer for buffer in stored if buffer.dtype == dtype]
        flat = torch.cat([buffer.reshape(-1) for buffer in same])
        dist.broadcast(flat, 0)
        for buffer, value in zip(same, flat.split([b.numel() for b in same]), strict=True):
            buffer.copy_(value.view(buffer.shape))
