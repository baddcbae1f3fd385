"""Exact evaluation: each sample of a split counts once, whatever the number of ranks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

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
