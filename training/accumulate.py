"""Gradient accumulation: the micro-batches of one step, forward and backward, as one big batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, TypeVar

from models.base import NumUnits

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from engines.base import Engine
    from models.base import Task
    from training.data.samples import MicroBatch


@dataclass(frozen=True)
class Accumulated:
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
) -> Accumulated:
    """Leave the gradient of the mean loss over `units`, those of all ranks, in the engine.

    Collective. A loss is a sum over units: divided by those of the whole global batch, it makes
    accumulation, padding and uneven ranks give the gradient of one big batch. One of several terms
    is the sum of their means. Each forward pass is done within `forward`.
    """
    # Engines average gradients over ranks; where there are no units, every sum is 0.
    scales = {term: engine.world.size / max(count, 1) for term, count in units.items()}
    share = {term: main_units(units) / max(count, 1) for term, count in units.items()}
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
    return Accumulated(reduce(add, losses), parts, main_units(units))


Units = Mapping[str, int]
"""Units by term; the one term of a loss that has no more is called LOSS."""
LOSS = ""
_Value = TypeVar("_Value")


def by_term(value: _Value | Mapping[str, _Value]) -> Mapping[str, _Value]:
    """A weight or a sum by term, also where it is one alone."""
    return value if isinstance(value, Mapping) else {LOSS: value}


def total_units(weights: Iterable[NumUnits]) -> dict[str, int]:
    """The units of several batches together."""
    total: dict[str, int] = {}
    for weight in weights:
        for term, units in by_term(weight).items():
            total[term] = total.get(term, 0) + units
    return total


def main_units(units: Units) -> int:
    """What counts as the units of a step: those of the first term."""
    return next(iter(units.values()))
