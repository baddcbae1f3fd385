"""What ranks tell each other before a step: their units, and what their hooks ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from engines.base import World

FLAG_BITS = 9


def agree(world: World, units: int, flags: int) -> tuple[int, int]:
    """The sum of `units` and the bitwise or of `flags` over ranks. Collective, one small sum.

    From host to host: no rank waits for its device, and units are known before the forward pass.
    """
    assert 0 <= flags < 1 << FLAG_BITS
    if world.size == 1:
        return units, flags
    own = [flags >> bit & 1 for bit in range(FLAG_BITS)]
    total, *counts = world.sum(torch.tensor([units, *own], dtype=torch.int64)).tolist()
    return total, sum(1 << bit for bit, count in enumerate(counts) if count)
