"""What ranks tell each other before a step: their units, and what their hooks ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from engines.base import World
    from training.units import Units

FLAG_BITS = 9


def agree(world: World, units: Units, flags: int) -> tuple[Units, int]:
    """The sum of `units` and the bitwise or of `flags` over ranks. Collective, one small sum.

    From host to host: no rank waits for its device, and units are known before the forward pass.
    All ranks have the same terms in the same order.
    """
    assert 0 <= flags < 1 << FLAG_BITS
    if world.size == 1:
        return units, flags
    own = [flags >> bit & 1 for bit in range(FLAG_BITS)]
    told = torch.tensor([*units.values(), *own], dtype=torch.int64)
    sums = world.sum(told).tolist()
    total = dict(zip(units, sums, strict=False))
    return total, sum(1 << bit for bit, count in enumerate(sums[len(units) :]) if count)
