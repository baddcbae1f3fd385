"""Gradient accumulation: the micro-batches of one step, forward and backward, as one big batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, TypeVar

from gearshift.models.base import NumUnits
from gearshift.training.step_metrics import BACKWARD, FORWARD

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from gearshift.engines.base import Engine
    from gearshift.models.base import Task
    from gearshift.training.data.samples import MicroBatch

Units = Mapping[str, int]
"""Units by term of the loss; the only term of a simple loss is called LOSS."""
LOSS = ""
TOKENS = "computed tokens"
"""Beside the terms, what the ranks count; see MicroBatch."""
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Accumulated:
    """Sums over the micro-batches of one step on this rank; tensors are on the device."""

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
    enter: Callable[[str], None] = lambda part: None,
) -> Accumulated:
    """Leave the gradient of the mean loss over `units` of all ranks in the engine. Collective.

    A loss is a sum over units. Dividing it by the units of the whole global batch gives the
    gradient of one big batch for any accumulation, padding and split over ranks. A loss of several
    terms is the sum of their means. `enter` is told the part of the step that begins.
    """
    # Engines average gradients over ranks; a term without units has only sums of 0.
    scales = {term: engine.world.size / max(count, 1) for term, count in units.items()}
    share = {term: main_units(units) / max(count, 1) for term, count in units.items()}
    losses: list[Tensor] = []
    parts: dict[str, Tensor] = {}
    for number, micro_batch in enumerate(micro_batches, start=1):
        with engine.accumulate(last=number == len(micro_batches)):
            enter(FORWARD)
            result = task.loss(module, micro_batch.batch)
            enter(BACKWARD)
            terms = by_term(result.sum)
            loss = reduce(add, [terms[term] * scale for term, scale in scales.items()])
            engine.backward(loss)
        losses.append(loss.detach())
        step_parts = {**{t: x * share[t] for t, x in terms.items() if t != LOSS}, **result.parts}
        for name, part in step_parts.items():
            parts[name] = parts[name] + part.detach() if name in parts else part.detach()
    return Accumulated(reduce(add, losses), parts, main_units(units))


def by_term(value: _Value | Mapping[str, _Value]) -> Mapping[str, _Value]:
    """`value` by term of the loss; a single value belongs to the term LOSS."""
    return value if isinstance(value, Mapping) else {LOSS: value}


def total_units(num_units: Iterable[NumUnits]) -> dict[str, int]:
    total: dict[str, int] = {}
    for value in num_units:
        for term, count in by_term(value).items():
            total[term] = total.get(term, 0) + count
    return total


def units_and_tokens(micro_batches: Sequence[MicroBatch]) -> dict[str, int]:
    """The units of `micro_batches` by term, with their computed tokens where they have some."""
    counts = total_units(micro_batch.num_units for micro_batch in micro_batches)
    for micro_batch in micro_batches:
        if micro_batch.num_tokens is not None:
            counts[TOKENS] = counts.get(TOKENS, 0) + micro_batch.num_tokens
    return counts


def main_units(units: Units) -> int:
    """The units of a step: those of the first term."""
    return next(iter(units.values()))
