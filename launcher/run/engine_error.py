"""An error of the first forward and backward passes: whether the engine or the model raises it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import psutil
import torch

from gearshift.engines.base import EngineError
from gearshift.engines.catalog import Entry, Placement, find
from gearshift.engines.environment import RankInfo
from gearshift.engines.parameters import engines_that, with_dense_tensors
from gearshift.engines.weight_changes import checksum
from gearshift.engines.world import ProcessWorld
from gearshift.launcher.run.run_error import is_lost_peer
from gearshift.training.accumulate import by_term
from gearshift.training.data.loader import on_device
from gearshift.training.data.samples import SampleDraws
from gearshift.training.evaluation.evaluate import check_measures
from gearshift.training.throttle import first_line

if TYPE_CHECKING:
    from torch.nn import Module

    from gearshift.engines.base import Engine, World
    from gearshift.models.base import Task

Prepare = Callable[["Module", "World"], tuple["Engine", "Module"]]
"""Prepares a model under the engine local, with all other settings of the run."""
_MODEL_ERRORS = (
    RuntimeError,
    TypeError,
    ValueError,
    ArithmeticError,
    LookupError,
    AssertionError,
    AttributeError,
    ImportError,
    OSError,
    MemoryError,
)
_BYTES_PER_PARAMETER = 16
"""Weights, gradients, and two moments."""


def refusal(
    error: Exception,
    engine: str,
    world: World,
    task: Task,
    batches: Sequence[Any],
    micro_batch: int,
    parameters: int,
    prepare: Prepare,
) -> EngineError | None:
    """The reason why `engine` cannot train the model of `task`; None: `error` has another cause.

    That is an experiment: this process takes a step of its own under the engine local, with the
    `batches` in which the error was raised, or with validation samples. Not collective.
    """
    entry = find(engine)
    is_plain = entry.placement == Placement() and world.size == 1
    is_ours = type(error).__module__.startswith("gearshift.")
    if is_plain or is_ours or isinstance(error, TimeoutError) or is_lost_peer(error):
        return None
    # The other ranks of this machine meet the same error.
    available = psutil.virtual_memory().available // world.local_size
    if parameters * _BYTES_PER_PARAMETER > available:
        return None
    alone = ProcessWorld(RankInfo(), world.device, timeout_s=0.0)
    try:
        is_replicable = _take_step(alone, task, batches, micro_batch, prepare)
    except _MODEL_ERRORS:  # whatever it is: not only this engine meets it
        return None

    def can_train(other: Entry, processes: int) -> bool:
        if other.placement != Placement():
            return False
        if processes == 1:
            return True
        # As engine ddp averages replicas: so does oss.
        return is_replicable and entry.placement.gradients != "replicated"

    able = engines_that(can_train, world.size)
    cause = f"{type(error).__name__}: {first_line(error)}"
    return EngineError(
        f"engine {entry.name} cannot train this model: {cause}; engines that train it: {able}"
    )


def _take_step(
    world: World, task: Task, batches: Sequence[Any], micro_batch: int, prepare: Prepare
) -> bool:
    """Whether replicas of the model would stay equal after a step. Raises what the model raises."""
    model = with_dense_tensors(task.build)
    engine, module = prepare(model, world)
    with closing(engine):
        module.train()
        check_measures(task, module, micro_batch, world)
        if not batches:
            split = task.data("val")
            count = min(len(split), micro_batch)
            samples = [split.sample(i, SampleDraws(0, i)) for i in range(count)]
            batches = [on_device(task.collate(samples), world.device)]
        before = _fingerprint(model)
        for number, batch in enumerate(batches, start=1):
            with engine.accumulate(last=number == len(batches)):
                terms = by_term(task.loss(module, batch).sum)
                engine.backward(torch.stack([*terms.values()]).sum())
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        has_sparse = any(gradient.is_sparse for gradient in gradients)
        is_unchanged = _fingerprint(model) == before
        engine.step()
    return is_unchanged and not has_sparse


def _fingerprint(model: Module) -> list[tuple[int, int]]:
    return [(p.data_ptr(), int(checksum(p))) for p in model.parameters()]
