"""What ranks agree on: units and requested actions before a step, and the first error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from engines.base import World

if TYPE_CHECKING:
    from engines.base import World
    from training.accumulate import Units


FLAG_BITS = 11


def agree(
    world: World, units: Units, flags: int, more: Sequence[int] = ()
) -> tuple[Units, int, Sequence[int]]:
    """Sums of `units` and of `more`, and the bitwise or of `flags`, over ranks.

    Collective, one small sum from host to host: no rank waits for its device, and units are known
    before the forward pass. All ranks have the same terms in the same order, and as much of `more`.
    """
    assert 0 <= flags < 1 << FLAG_BITS
    if world.size == 1:
        return units, flags, more
    own = [flags >> bit & 1 for bit in range(FLAG_BITS)]
    told = torch.tensor([*own, *more, *units.values()], dtype=torch.int64)
    sums = world.sum(told).tolist()
    counts, others = sums[:FLAG_BITS], sums[FLAG_BITS : FLAG_BITS + len(more)]
    total = dict(zip(units, sums[FLAG_BITS + len(more) :], strict=True))
    return total, sum(1 << bit for bit, count in enumerate(counts) if count), others


_MOST_BYTES = 1000


def first_error(world: World, mine: str | None) -> str | None:
    """What the first rank that failed says is wrong, with its rank; None where none failed.

    Collective. `mine`: what is wrong here. A long text is cut.
    """
    if not world.agree(int(mine is not None)):
        return None
    backwards = world.size - world.rank if mine is not None else 0
    first = world.size - int(world.maximum(torch.tensor([backwards])))
    text = world.broadcast(str(mine).encode()[:_MOST_BYTES], first)
    where = f"rank {first}: " if world.size > 1 else ""
    return where + text.decode("utf-8", "replace")
