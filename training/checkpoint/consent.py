"""A fault of one rank told to all of them."""

from __future__ import annotations

import torch

from engines.base import World

_MOST_BYTES = 1000


def first_fault(world: World, mine: str | None) -> str | None:
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
