"""What a plan traces: the task of a run with its data, and its largest micro-batch of a few."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

from launcher.base.ending import temporary_folder
from launcher.config import schema
from launcher.config.batching import check_fills
from launcher.config.provenance import Resolved
from launcher.plan.step_trace import Subject
from models.base import DataError, Task
from training.data.order import DataOrder
from training.data.samples import MicroBatch, Samples
from training.train_plan import TrainPlan, solve

_TRIED, _TRIED_S = 8, 1.0
"""Micro-batches of which the largest is traced, and the time for them."""


@dataclass(frozen=True)
class TaskData:
    """A task with its data."""

    task: Task
    samples: Samples
    model: Any
    """The section of the settings from which the task was made."""

    def subject(self, resolved: Resolved) -> Subject:
        """The training of the task with the batch numbers of `resolved`. Raises DataError."""
        settings, numbers = resolved.settings, resolved.batching
        check_fills(resolved, len(self.samples))
        order = DataOrder(len(self.samples), numbers.global_batch, settings.train.seed)
        plan = solve(
            settings,
            samples=order.length,
            global_batch=numbers.global_batch,
            micro_batch=numbers.micro_batch,
            world_size=numbers.world_size,
            units=self.task.units,
        )
        return Subject(self.task, settings, plan, _largest(self.samples, order, plan))


@contextmanager
def read_task(resolved: Resolved) -> Iterator[TaskData]:
    """The task of `resolved` with its data; its files go into a temporary folder.

    Reads the data. Raises SettingsError and DataError.
    """
    settings = resolved.settings
    with temporary_folder("gearshift-plan-") as folder:
        task = schema.task_with_data(settings, folder)
        yield TaskData(task, Samples(task, task.data("train"), settings.train.seed), settings.model)


def _largest(samples: Samples, order: DataOrder, plan: TrainPlan) -> MicroBatch:
    """The largest of a few micro-batches in bytes: padding differs."""
    batches: list[MicroBatch] = []
    end = time.monotonic() + _TRIED_S
    for step in range(order.steps_per_epoch):
        epoch, shares = order.share(step, 0, plan.world_size, plan.micro_batch)
        for share in shares:
            given = samples[epoch, share]
            if isinstance(given, DataError):
                raise given
            batches.append(given)
            if len(batches) == _TRIED or time.monotonic() > end:
                return max(batches, key=_bytes)
    return max(batches, key=_bytes)


def _bytes(given: MicroBatch) -> int:
    return sum(leaf.nbytes for leaf in tree_leaves(given.batch) if isinstance(leaf, Tensor))
