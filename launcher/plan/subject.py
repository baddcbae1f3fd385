"""What a plan traces: the task of a run with its data, and its largest micro-batch of a few."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from launcher.base.signals import temporary_folder
from launcher.config import schema
from launcher.config.batching import check_fills
from launcher.config.provenance import Resolved
from launcher.plan.step_trace import UNTRACED_ERRORS, Subject, Tracing, cleared_caches
from models.base import Batch, DataError, HasFrozenEncoder, Task
from training.data.order import DataOrder
from training.data.samples import MicroBatch, Samples
from training.settings import FeatureCache
from training.train_plan import TrainPlan, solve

if TYPE_CHECKING:
    import numpy as np

_TRIED, _TRIED_S = 8, 1.0
"""Micro-batches of which the largest is traced, and the time for them."""


@dataclass(frozen=True)
class TaskData:
    """A task with its data."""

    task: Task
    samples: Samples
    model: Any
    """The section of the settings from which the task was made."""
    encoded: Batch | None = None
    """Inputs of the frozen encoder for one pass, if the samples have cached features."""

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
        micro_batch = _largest(self.samples, order, plan)
        return Subject(self.task, settings, plan, micro_batch, encoded=self.encoded)


@contextmanager
def read_task(resolved: Resolved) -> Iterator[TaskData]:
    """The task of `resolved` with its data; its files go into a temporary folder.

    Reads the data. Raises SettingsError and DataError.
    """
    settings = resolved.settings
    with temporary_folder("gearshift-plan-") as folder:
        task = schema.task_with_data(settings, folder)
        encoded = _use_features(task, settings.feature_cache)
        samples = Samples(task, task.data("train"), settings.train.seed)
        yield TaskData(task, samples, settings.model, encoded)


def _use_features(task: Task, cache: FeatureCache) -> Batch | None:
    """Let `task` return samples with cached features, if a run does; inputs of one encoder pass.

    None: the encoder runs in each step. Whether the disk has room is not looked at.
    """
    if not isinstance(task, HasFrozenEncoder) or cache.mode == "off" or task.varying_inputs():
        return None
    from training.data import feature_cache

    tracing = Tracing(is_fake=True)
    try:
        model = tracing.build(task)
        if task.frozen_encoder(model) is None:
            return None
        first = task.encoder_inputs("train")
        batch = first.batch([n % len(first) for n in range(feature_cache.BATCH)])
        given = tracing.copied(batch)
        with cleared_caches(), tracing.computing(), torch.no_grad():
            made = task.encode(model, given)
    except UNTRACED_ERRORS:  # the encoder needs values
        return None
    inputs = {split: task.encoder_inputs(split) for split in feature_cache.SPLITS}
    rows: dict[str, np.ndarray] = {}
    for name, values in made.items():
        kept = torch.float32 if values.dtype in feature_cache.HALVES else values.dtype
        rows[name] = torch.zeros(values.shape[1:], dtype=kept, device="cpu").numpy()
    needed = sum(row.nbytes for row in rows.values()) * sum(map(len, inputs.values()))
    if needed > cache.limit_gb * 1e9:
        return None
    task.use_features({split: defaultdict(lambda: rows) for split in inputs})
    return batch


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
                return max(batches, key=batch_bytes)
    return max(batches, key=batch_bytes)


def batch_bytes(given: MicroBatch) -> int:
    """Bytes of its tensors."""
    return sum(leaf.nbytes for leaf in tree_leaves(given.batch) if isinstance(leaf, Tensor))
