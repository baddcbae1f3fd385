"""Exact evaluation of a split, and of old and new data apart to measure forgetting."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from engines.base import World
    from models.base import Task
    from training.data.loader import EvaluationBatches
    from training.data.samples import MicroBatch


def evaluate(
    task: Task, module: Module, batches: EvaluationBatches, world: World
) -> dict[str, float]:
    """The metrics of the whole split, the same on every rank. Collective.

    `module` is in evaluation mode meanwhile, and in training mode afterwards.
    """
    return _measure(task, module, batches, world)


def metric_names(task: Task, module: Module, batches: EvaluationBatches, world: World) -> list[str]:
    """What the metrics are called, learnt from each rank's first micro-batch. Collective."""
    return sorted(_measure(task, module, [next(iter(batches))], world))


def _measure(
    task: Task, module: Module, batches: Iterable[tuple[MicroBatch, bool]], world: World
) -> dict[str, float]:
    metric = task.metric()
    total: Tensor | None = None
    module.eval()
    try:
        with torch.no_grad():
            for micro_batch, counts in batches:
                # Also where it does not count: sharded engines gather weights in every forward.
                found = metric.update(module, micro_batch.batch)
                added = found if counts else torch.zeros_like(found)
                total = added if total is None else total + added
    finally:
        module.train()
    assert total is not None  # EvaluationBatches gives every rank at least one
    return metric.result(world.sum(total).cpu())


Metrics = Mapping[str, float]
OLD, NEW, ALL = "val_old", "val_new", "val"
"""The splits: all that earlier parts hold out, what the new one holds out, and both together."""


@dataclass(frozen=True)
class HeldOutPart:
    """What one part of the data holds out, and the task that measures it."""

    task: Task
    batches: EvaluationBatches
    samples: int


class Forgetting:
    """Evaluates old and new held-out parts by themselves. Collective: evaluate, look_before."""

    def __init__(self, number: int, old: Sequence[HeldOutPart], new: HeldOutPart):
        """`number` is that of the experience; `old` has at least one part."""
        self._number, self._old, self._new = number, old, new
        self._before: Mapping[str, Metrics] | None = None
        self._after: Mapping[str, Metrics] | None = None

    @property
    def looked_before(self) -> bool:
        """Whether it is known how things were before the first step."""
        return self._before is not None

    def look_before(self, module: Module, world: World) -> None:
        """Measure what the experience begins with."""
        self._before = self._measure(module, world)

    def evaluate(self, module: Module, world: World) -> dict[str, dict[str, float]]:
        """The metrics of OLD, NEW and ALL, the last one's last.

        Each part is measured by its own task; of several parts it is the mean by their samples.
        """
        self._after = self._measure(module, world)
        return {name: dict(metrics) for name, metrics in self._after.items()}

    def _measure(self, module: Module, world: World) -> dict[str, dict[str, float]]:
        old = [(p.samples, evaluate(p.task, module, p.batches, world)) for p in self._old]
        new = (self._new.samples, evaluate(self._new.task, module, self._new.batches, world))
        return {OLD: mean(old), NEW: mean([new]), ALL: mean([*old, new])}

    def learnt(self) -> dict[str, Any] | None:
        """The experience's number, and the metrics of OLD and NEW before and after it."""
        if self._before is None or self._after is None:
            return None
        sides = {
            name: {"before": self._before[split], "after": self._after[split]}
            for name, split in (("old", OLD), ("new", NEW))
        }
        return {"number": self._number, **sides}

    def facts(self) -> dict[str, Any]:
        """What `resume` needs, as plain numbers."""
        return {"before": self._before, "after": self._after}

    def resume(self, facts: Mapping[str, Any]) -> None:
        """Go on within the experience, from what another process wrote down."""
        self._before, self._after = (_numbers(facts.get(name)) for name in ("before", "after"))

    def close(self) -> None:
        """End the workers."""
        for part in (*self._old, self._new):
            part.batches.close()


def mean(parts: Sequence[tuple[int, Metrics]]) -> dict[str, float]:
    """The mean of each metric by samples, over the parts that know it; NaN where none does."""
    names = {name: None for _, metrics in parts for name in metrics}
    found = {}
    for name in names:
        known = [
            (samples, metrics[name])
            for samples, metrics in parts
            if not math.isnan(metrics.get(name, math.nan))
        ]
        count = sum(samples for samples, _ in known)
        found[name] = sum(n * value for n, value in known) / count if count else math.nan
    return found


def _numbers(told: Any) -> Mapping[str, Metrics] | None:
    """Metrics as plain JSON has them, infinite ones and NaN as words."""
    if told is None:
        return None
    return {
        split: {name: float(value) for name, value in metrics.items()}
        for split, metrics in told.items()
    }
