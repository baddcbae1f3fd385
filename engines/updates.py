"""A placed model with its optimizer: one backward pass, one update."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn import Module, Parameter
from torch.optim import Optimizer

from engines.base import Update, World
from engines.buffers import follow_rank_zero, stored_buffers
from engines.gradients import clip_factor, global_norm, scale
from engines.loss_scale import LossScale


class Updates:
    """Backward passes and updates of a model whose gradients the engine has averaged.

    Collective. `sharded`: gradients are DTensors, of which each rank holds its own part.
    """

    def __init__(
        self,
        world: World,
        model: Module,
        named: Mapping[str, Parameter],
        optimizer: Optimizer,
        clip_norm: float | None,
        *,
        fp16: bool,
        sharded: bool = False,
    ):
        self.optimizer = optimizer
        self.loss_scale = LossScale() if fp16 else None
        self.without_gradient: list[str] = []
        self._world = world
        self._named = named
        self._buffers = stored_buffers(model)
        self._clip_norm = clip_norm
        self._sharded = sharded
        self._is_first = True

    @property
    def scale_state(self) -> dict[str, float]:
        return self.loss_scale.state() if self.loss_scale else {}

    def load_scale(self, loss_scale: Mapping[str, float]) -> None:
        if self.loss_scale:
            self.loss_scale.load(loss_scale)

    def backward(self, loss: Tensor) -> None:
        (self.loss_scale.scale(loss) if self.loss_scale else loss).backward()

    def step(self) -> Update:
        """Clip, update, clear; the host waits for the device in fp16 only."""
        if self._is_first:
            self.without_gradient = self._unreached()
            self._is_first = False
        gradients = self._gradients()
        norm = global_norm(gradients, self._world, self._sharded)
        update = self._fp16(gradients, norm) if self.loss_scale else self._plain(gradients, norm)
        self.optimizer.zero_grad()
        follow_rank_zero(self._buffers, self._world)
        return update

    def discard(self) -> None:
        self.optimizer.zero_grad()

    def _plain(self, gradients: Sequence[Tensor], norm: Tensor) -> Update:
        if self._clip_norm is not None:
            scale(gradients, clip_factor(norm, self._clip_norm))
        self.optimizer.step()
        return Update(norm)

    def _fp16(self, gradients: Sequence[Tensor], norm: Tensor) -> Update:
        assert self.loss_scale
        used = self.loss_scale.value
        norm = norm / used
        # The norm is that of all ranks, to the bit the same on each: they skip together.
        overflow = not bool(torch.isfinite(norm))
        if not overflow:
            factor = 1.0 if self._clip_norm is None else clip_factor(norm, self._clip_norm)
            scale(gradients, torch.as_tensor(factor, device=norm.device) / used)
            self.optimizer.step()
        self.loss_scale.told(overflow)
        return Update(norm, overflow, used)

    def _gradients(self) -> list[Tensor]:
        gradients = (p.grad for p in self._named.values() if p.grad is not None)
        return [g.to_local() if isinstance(g, DTensor) else g for g in gradients]

    def _unreached(self) -> list[str]:
        return [
            name
            for name, parameter in self._named.items()
            if parameter.requires_grad and parameter.grad is None
        ]
