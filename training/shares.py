"""Shares of ranks that are not equal: whole samples of a global batch for each rank."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gearshift.training.stragglers import SLOW_BLOCKS, Block

if TYPE_CHECKING:
    from torch.nn import Module

    from gearshift.engines.base import World
    from gearshift.training.callbacks.base import CallbackList
    from gearshift.training.data.loader import Batches
    from gearshift.training.step_metrics import StepTimer
    from gearshift.training.train_plan import ShareChange, TrainPlan

AUTO = "auto"
_GAIN = 1.05
"""Shares change if the slowest rank would compute so many times faster."""
_MEMORY = 0.9
"""Of the memory of a GPU, what a share may fill as far as the last one tells."""


def apportion(
    total: int,
    weights: Sequence[float],
    least: int,
    most: Sequence[int] | None = None,
) -> list[int]:
    """Whole numbers with the sum `total`, in proportion to `weights` as far as they can be.

    Each is at least `least` and at most its one of `most`, whose sum reaches the total. The largest
    ratio to a weight is as small as it can be: the slowest rank is ready as early as possible.
    """
    numbers = [least] * len(weights)
    # By the ratio that each would have with one more.
    ratios = [((least + 1) / weight, rank) for rank, weight in enumerate(weights)]
    heapify(ratios)
    for _ in range(total - sum(numbers)):
        _, rank = heappop(ratios)
        numbers[rank] += 1
        if most is None or numbers[rank] < most[rank]:
            heappush(ratios, ((numbers[rank] + 1) / weights[rank], rank))
    return numbers


def with_shares(
    plan: TrainPlan, setting: str | Sequence[int], measured: Sequence[ShareChange] = ()
) -> TrainPlan:
    """`plan` with the shares that engine.shares gives to ranks: numbers, or those `measured`.

    Those of an earlier start with another number of ranks do not count.
    """
    shares = []
    for step, weights in measured if isinstance(setting, str) else [(0, setting)]:
        if len(weights) == plan.world_size:
            shares.append((step, apportion(plan.global_batch, weights, plan.accumulation)))
    return replace(plan, shares=shares, fits_shares=setting == AUTO and plan.until is None)


class Balance:
    """The shares of the ranks, fitted to the speed that they show in logged steps. Collective.

    The first block of steps decides, and one more: while a rank waits, its neighbours are faster
    than when all compute. Later it takes `SLOW_BLOCKS` in a row: a hiccup changes nothing.
    """

    def __init__(self, is_measured: bool, world: World, callbacks: CallbackList):
        """`is_measured`: the shares that ranks have now are those of an earlier fit."""
        self._world = world
        self._callbacks = callbacks
        self._first_blocks = 0 if is_measured else 2
        self._unfit = 0  # Blocks in a row
        self._block = Block(world.size)

    def fit(self, step: int, times: np.ndarray, batches: Batches) -> list[int] | None:
        """Add the `times` of all ranks; the samples of each in later steps, None: as before.

        `times`: `RunMetrics.rank_times`.
        """
        block = self._block
        computing = block.seconds[0]
        if not block.add(step, times) or not computing.all():
            return None
        samples = np.array(batches.samples_by_rank)
        speeds = samples / computing
        most = self._most(batches)
        fitted = apportion(batches.global_batch, speeds.tolist(), batches.accumulation, most)
        gain = computing.max() / (fitted / speeds).max()
        self._unfit = self._unfit + 1 if gain > _GAIN else 0
        changes = self._unfit >= (1 if self._first_blocks > 0 else SLOW_BLOCKS)
        self._first_blocks -= 1
        self._block = Block(self._world.size, None if changes else step)
        if not changes:
            return None
        self._unfit = 0
        seconds = (computing / block.steps).tolist()
        self._callbacks.event("shares", {"samples": fitted, "seconds": seconds})
        return fitted

    def _most(self, batches: Batches) -> list[int] | None:
        """The samples of each rank that fit its GPU, by the peak of its present ones."""
        device = self._world.device
        if device.type != "cuda":
            return None
        samples = batches.samples_by_rank[self._world.rank]
        state = torch.cuda.memory_allocated(device)
        used = torch.cuda.max_memory_allocated(device) - state
        free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - state
        most = torch.zeros(self._world.size, dtype=torch.int64)
        most[self._world.rank] = max(samples, int(samples * _MEMORY * free / max(used, 1)))
        return self._world.sum(most).tolist()


class LayerTimer:
    """Adds up the seconds of a model's layers, for engines that gather the weights before each.

    A forward pass as a whole waits for other ranks there. In modules that are compiled their
    layers do not count, but they do.
    """

    def __init__(self, model: Module, timer: StepTimer):
        """Its hooks follow those of the engine, which gather."""
        self._timer = timer
        self._began: Any = None
        self._spans: list[tuple[Any, Any]] = []
        for layer in _layers(model):
            layer.register_forward_pre_hook(torch.compiler.disable(self._enter))
            layer.register_forward_hook(torch.compiler.disable(self._leave), prepend=True)

    def _enter(self, *_: Any) -> None:
        self._began = self._timer.now()

    def _leave(self, layer: Module, *_: Any) -> None:
        if layer.training:
            self._spans.append((self._began, self._timer.now()))

    def seconds(self) -> float:
        """Since the last call; the device has passed all of them."""
        spans = self._spans
        self._spans = []
        return sum(self._timer.seconds_between(*span) for span in spans)


def _layers(module: Module) -> Iterator[Module]:
    children = [*module.children()]
    if module._compiled_call_impl is None and children:
        for child in children:
            yield from _layers(child)
    elif [*module.parameters()]:
        yield module
