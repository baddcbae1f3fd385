"""Engines that keep a full copy of the weights on each rank."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Protocol

from torch import Tensor
from torch.nn import Module
from torch.optim import Optimizer

from engines.base import OptimizerSpec, Options, State, Update, World
from engines.optimizer_step import OptimizerStep
from engines.precision import check_precision, set_matmul_precision
from engines.preparation import build_optimizer, change_forward, place
from engines.state import check_cover, gather_state, load_steps, shapes_of


class Averaging(Protocol):
    """How the gradients of the copies become their mean."""

    @property
    def module(self) -> Module:
        """What the loop calls."""

    def accumulate(self, last: bool) -> AbstractContextManager[None]:
        """As `Engine.accumulate`."""

    def recall(self, steps: Mapping[str, float]) -> None:
        """Take note of how often each parameter was updated, before the first step here."""


class Sharding(Protocol):
    """How an optimizer is shared out over ranks."""

    def build(self, spec: OptimizerSpec, groups: list[dict[str, Any]]) -> Optimizer:
        """An optimizer over `groups` that updates every parameter on every rank."""

    def own(self, optimizer: Any) -> Optimizer:
        """The part of it that holds the slots of this rank."""


class Replicated:
    """Local, ddp and oss: they differ in how gradients are averaged and whether slots are sharded.

    Ranks may use different parameters in a step; what a rank did not use counts as zero.
    """

    def __init__(
        self,
        world: World,
        options: Options,
        averaging: Callable[[Module, World, Options], Averaging],
        sharding: Sharding | None = None,
    ):
        check_precision(options.precision, world.device)
        self.world = world
        self._options = options
        self._averaging = averaging
        self._sharding = sharding
        self._restore_matmul = set_matmul_precision(options.precision)

    def prepare(self, model: Module, optimizer: OptimizerSpec, blocks: Sequence[Module]) -> Module:
        place(model, self.world)
        change_forward(model, blocks, self._options, self.world.device)
        self._model = model
        self._named = dict(model.named_parameters())
        self._averaged = self._averaging(model, self.world, self._options)
        shard = self._sharding
        build = partial(shard.build, optimizer) if shard else optimizer.build
        self._updates = OptimizerStep(
            self.world,
            model,
            self._named,
            build_optimizer(optimizer, self._named, build),
            optimizer.clip_norm,
            fp16=self._options.precision == "fp16",
        )
        check_cover(self.state(), self.world)
        return self._averaged.module

    @property
    def groups(self) -> list[dict[str, Any]]:
        return self._updates.optimizer.param_groups

    @property
    def without_gradient(self) -> Sequence[str]:
        return self._updates.without_gradient

    def accumulate(self, last: bool) -> AbstractContextManager[None]:
        return self._averaged.accumulate(last)

    def backward(self, loss: Tensor) -> None:
        self._updates.backward(loss)

    def step(self) -> Update:
        return self._updates.step()

    def discard(self) -> None:
        self._updates.discard()

    @property
    def can_retry_step(self) -> bool:
        return self.world.size == 1  # others would wait for this rank's gradients

    @property
    def gathers_weights(self) -> bool:
        return False

    def resize(self, micro_batch: int, accumulation: int) -> None:
        """Nothing to do: windows are told of one by one."""

    def state(self) -> State:
        return gather_state(
            self._model,
            shapes_of(self._model),
            self._named,
            self._own_optimizer(),
            self.groups,
            self._updates.scale_state,
            weights_replicated=True,
            slots_replicated=self._sharding is None,
        )

    def load(self, steps: Mapping[str, float], loss_scale: Mapping[str, float]) -> None:
        load_steps(self._own_optimizer(), self._named, steps)
        self._averaged.recall(steps)
        self._updates.load_scale(loss_scale)
        self.refresh()

    def _own_optimizer(self) -> Optimizer:
        """What holds the slots of this rank."""
        optimizer = self._updates.optimizer
        return self._sharding.own(optimizer) if self._sharding else optimizer

    def refresh(self) -> None:
        """Nothing to do: the pieces are the working weights."""

    def close(self) -> None:
        self._restore_matmul()
