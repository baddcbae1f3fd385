"""The check that the ranks together hold every element of a state once."""

from __future__ import annotations

from math import prod

import torch
import torch.distributed as dist

from gearshift.engines.base import EngineError, State, World, kind_shape
from gearshift.engines.state import SLOTS, WEIGHT


def check_cover(state: State, world: World) -> None:
    """Check that all ranks together hold each tensor exactly once. Collective.

    Engines rely on internals of their libraries. This check runs at every start, so that another
    version cannot write a checkpoint with holes. Raises EngineError on every rank.
    """
    if world.size > 1 and dist.get_backend() == "fake":
        return  # the other ranks do not exist
    others = {piece.kind for piece in state.pieces} - {WEIGHT, *SLOTS}
    kinds = (WEIGHT, *SLOTS, *sorted(others))
    names = list(state.shapes)
    rows = {name: index for index, name in enumerate(names)}
    held = torch.zeros(len(names), len(kinds), dtype=torch.int64)
    for piece in state.pieces:
        if piece.replica[0] == 0:  # others are counted where the first copy is
            row = rows[piece.name]
            column = kinds.index(piece.kind)
            held[row, column] += piece.data.numel()

    counts = world.sum(held).tolist()
    for name, of_kinds in zip(names, counts, strict=True):
        for kind, count in zip(kinds, of_kinds, strict=True):
            shape = kind_shape(kind, state.shapes[name])
            size = prod(shape)
            if count != size and (count or kind == WEIGHT):
                raise EngineError(
                    f"the engine holds {count} of the {size} elements of {kind} of '{name}'; this "
                    "version of its library is not supported; engine ddp does not need it"
                )
