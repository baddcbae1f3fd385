"""Gradient accumulation: one window of micro-batches forward and backward, as one big batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

from training.units import LOSS, Units, by_term, counted

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from engines.base import Engine
    from models.base import Task
    from training.data.samples import MicroBatch


@dataclass(frozen=True)
class Window:
    """What the micro-batches of one step gave on this rank; tensors are on the device."""

    loss: Tensor
    """This rank's sum over the units of the global batch, times the world size."""
    parts: Mapping[str, Tensor]
    """Sums over this rank's units, each in proportion to `units`."""
    units: int
    """Of the whole global batch."""


def accumulate(
    task: Task,
    engine: Engine,
    module: Module,
    micro_batches: Sequence[MicroBatch],
    units: Units,
    forward: AbstractContextManager[None] = nullcontext(),  # noqa: B008 - it holds nothing
) -> Window:
    """Leave the gradient of the mean loss over `units`, those of all ranks, in the engine.

    Collective. A loss is a sum over units: divided by those of the whole global batch, it makes
    accumulation, padding and uneven ranks give the gradient of one big batch. One of several terms
    is the sum of their means. Each forward pass is done within `forward`.
    """
    # Engines average gradients over ranks; where there are no units, every sum is 0.
    scales = {term: engine.world.size / max(count, 1) for term, count in units.items()}
    share = {term: counted(units) / max(count, 1) for term, count in units.items()}
    losses: list[Tensor] = []
    parts: dict[str, Tensor] = {}
    for number, micro_batch in enumerate(micro_batches, start=1):
        with engine.accumulate(last=number == len(micro_batches)):
            with forward:
                found = task.loss(module, micro_batch.batch)
            terms = by_term(found.sum)
            loss = reduce(add, [terms[term] * scale for term, scale in scales.items()])
            engine.backward(loss)
        losses.append(loss.detach())
        told = {**{t: x * share[t] for t, x in terms.items() if t != LOSS}, **found.parts}
        for name, part in told.items():
            parts[name] = parts[name] + part.detach() if name in parts else part.detach()
    return Window(reduce(add, losses), parts, counted(units))
