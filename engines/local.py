"""Plain PyTorch in the process you started; the reference that other engines are held to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.nn import Module

from engines.base import OptimizerSpec, Options, State, Update, World
from engines.gradients import average
from engines.precision import check_precision, set_matmul_precision
from engines.preparation import broadcast, build_optimizer, change_forward
from engines.state import check_cover, gather_state, shapes_of
from engines.updates import Updates


class Local:
    """A full copy of the model on each rank; gradients are averaged in one piece after backward."""

    def __init__(self, world: World, options: Options):
        check_precision(options.precision, world.device)
        self.world = world
        self._options = options
        self._restore_matmul = set_matmul_precision(options.precision)

    def prepare(self, model: Module, optimizer: OptimizerSpec, blocks: Sequence[Module]) -> Module:
        model.to(self.world.device)
        broadcast(model, self.world)
        change_forward(model, blocks, self._options, self.world.device)
        self._model = model
        self._shapes = shapes_of(model)
        self._updates = Updates(
            self.world,
            model,
            build_optimizer(optimizer, model),
            optimizer.clip_norm,
            fp16=self._options.precision == "fp16",
        )
        check_cover(self.state(), self.world)
        return model

    @property
    def groups(self) -> list[dict[str, Any]]:
        return self._updates.groups

    @property
    def without_gradient(self) -> Sequence[str]:
        return self._updates.without_gradient

    @contextmanager
    def accumulate(self, last: bool) -> Iterator[None]:
        yield
        if last:
            average(self._model.parameters(), self.world)

    def backward(self, loss: Tensor) -> None:
        self._updates.backward(loss)

    def step(self) -> Update:
        return self._updates.step()

    def discard(self) -> None:
        self._updates.discard()

    def state(self) -> State:
        return gather_state(
            self._model,
            self._shapes,
            self._updates.optimizer,
            self._updates.groups,
            self._updates.scale_state,
            weights_replicated=True,
            slots_replicated=True,
        )

    def refresh(self) -> None:
        """Nothing to do: the pieces are the working weights."""

    def close(self) -> None:
        self._restore_matmul()
