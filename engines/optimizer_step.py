"""The optimizer step: gradients averaged, measured, clipped and applied."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import compress
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Module, Parameter
from torch.nn.utils import get_total_norm, vector_to_parameters

from gearshift.engines.base import Numbers, OptimizerSpec, Options, Update, World
from gearshift.engines.parameters import is_sharded
from gearshift.engines.preparation import build_optimizer
from gearshift.engines.state import broadcast_buffers, load_steps, shapes_of, stored_buffers

if TYPE_CHECKING:
    from gearshift.engines.loss_scale import LossScale
    from gearshift.engines.weight_changes import WeightChanges


class EngineWithOptimizerStep:
    """An engine that averages gradients and updates with torch's optimizer. Collective."""

    world: World
    _options: Options

    def begin_updates(self, model: Module, spec: OptimizerSpec) -> None:
        """To be called once at the end of `prepare`."""
        self.without_gradient: Sequence[str] = ()
        self._model = model
        self._shapes = shapes_of(model)
        # Read once: after an evaluation the modules may hold full tensors instead of shards.
        self._named = dict(model.named_parameters())
        self._optimizer = build_optimizer(spec, self._named)
        self.groups = self._optimizer.param_groups
        self._local_optimizer = self._optimizer
        """The one with the slots of this rank."""
        self._loss_scale: LossScale | None = None
        if self._options.precision == "fp16":
            from gearshift.engines.loss_scale import LossScale

            self._loss_scale = LossScale()
        self._buffers = stored_buffers(model)
        self._clip_norm = spec.clip_norm
        self._is_first = True
        self._changes = self._watch_weights()

    def _watch_weights(self) -> WeightChanges | None:
        """The check of what forward passes do to weights; None: this engine loses nothing."""
        return None

    @property
    def scale_state(self) -> dict[str, float]:
        """The state of the loss scale; empty without one."""
        return self._loss_scale.state() if self._loss_scale else {}

    def load(self, steps: Numbers, loss_scale: Numbers) -> None:
        """As `Engine.load`."""
        load_steps(self._local_optimizer, self._named, steps)
        if self._loss_scale:
            self._loss_scale.load(loss_scale)
        self.refresh()

    def refresh(self) -> None:
        """Nothing to do: the pieces are the working weights."""

    def resize(self, micro_batch: int, accumulation: int) -> None:
        """Nothing to do: the loop passes each micro-batch."""

    def backward(self, loss: Tensor) -> None:
        if self._loss_scale:
            loss = loss * self._loss_scale.value
        loss.backward()

    def step(self) -> Update:
        """As `Engine.step`; the host waits for the device in fp16 only."""
        if self._is_first:
            self.without_gradient = [
                name for name, p in self._named.items() if p.requires_grad and p.grad is None
            ]
            self._is_first = False
        if self._changes:
            self._changes.end_step()
        norm = self._total_norm()
        scale = self._loss_scale
        if scale is None:
            update = Update(norm)
            self._apply(self._clip_factor(norm))
        else:
            used = scale.value
            norm /= used
            # The norm is that of all ranks and bit-equal on each: they skip together.
            overflow = not torch.isfinite(norm)
            if overflow:
                self.discard()
            else:
                factor = self._clip_factor(norm)
                if factor is None:
                    factor = torch.ones_like(norm)
                self._apply(factor / used)
            update = Update(norm, scale.update(overflow), used)
        broadcast_buffers(self._buffers, self.world)
        return update

    def _total_norm(self) -> Tensor:
        """The norm of the gradients that all ranks have averaged."""
        return global_norm(gradients_of(self._named.values()), self.world, None)

    def discard(self) -> None:
        if self._changes:
            self._changes.drop_step()
        self._optimizer.zero_grad()

    def settle(self) -> None:
        """As `Engine.settle`."""

    def _clip_factor(self, norm: Tensor) -> Tensor | None:
        return None if self._clip_norm is None else clip_factor(norm, self._clip_norm)

    def _apply(self, factor: Tensor | None) -> None:
        """Update with gradients times the scalar `factor`, and clear them."""
        if factor is not None:
            scale(gradients_of(self._named.values()), factor)
        self._optimizer.step()
        self._optimizer.zero_grad()


def average(parameters: Iterable[Parameter], world: World) -> None:
    """Replace gradients by their mean over ranks. Collective.

    The gradient of a rank that did not use a parameter counts as zero; a parameter that no rank
    used keeps no gradient.
    """
    if world.size == 1:
        return  # without a walk through all modules, which takes as long as a small layer
    parameters = list(parameters)
    if not parameters:
        return
    gradients_of(parameters)  # makes them dense
    on_this_rank = torch.tensor([p.grad is not None for p in parameters], dtype=torch.uint8)
    by_dtype: dict[torch.dtype, list[Tensor]] = {}
    for parameter in compress(parameters, world.maximum(on_this_rank).tolist()):
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        by_dtype.setdefault(parameter.dtype, []).append(parameter.grad)
    for gradients in by_dtype.values():
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        flat /= world.size
        dist.all_reduce(flat)
        vector_to_parameters(flat, gradients)


def global_norm(
    gradients: Sequence[Tensor], world: World, replicas: int | None, whole: Sequence[Tensor] = ()
) -> Tensor:
    """The Euclidean norm of all gradients, a scalar on the world's device.

    `replicas`: how many ranks hold each shard of `gradients`; None: all hold everything. Collective
    otherwise. All ranks hold the gradients in `whole`.
    """
    norm = get_total_norm(gradients).to(torch.float32)
    if replicas and world.size > 1:
        norm = (world.sum(norm.square()) / replicas).sqrt()
    norm = norm.to(world.device)
    return torch.hypot(norm, get_total_norm(whole).to(norm)) if whole else norm


def gradients_of(parameters: Iterable[Parameter]) -> list[Tensor]:
    """The gradients that `parameters` have, of a sharded one that of this rank's shard."""
    gradients = []
    for parameter in parameters:
        gradient: Any = parameter.grad
        if gradient is None:
            continue
        if gradient.is_sparse:  # which most optimizers refuse
            gradient = parameter.grad = gradient.to_dense()
        gradients.append(gradient.to_local() if is_sharded(gradient) else gradient)
    return gradients


def scale(gradients: list[Tensor], factor: Tensor) -> None:
    """Multiply `gradients` by the scalar `factor`, in place and without waiting for the device."""
    if gradients:
        torch._foreach_mul_(gradients, factor.to(gradients[0].device))


def clip_factor(norm: Tensor, clip_norm: float) -> Tensor:
    """The factor that clips gradients of `norm` to `clip_norm`, as in clip_grad_norm_ of torch."""
    return (clip_norm / (norm + 1e-6)).clamp(max=1.0)
