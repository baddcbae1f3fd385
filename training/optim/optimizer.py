"""The optimizer spec of a run; engines build the optimizer once they have placed parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from gearshift.engines.base import EngineError, OptimizerSpec
from gearshift.models.base import HasOptimizer
from gearshift.training.optim.nonfinite import guarded

if TYPE_CHECKING:
    from torch.nn import Module, Parameter
    from torch.optim import Optimizer

    from gearshift.engines.base import World
    from gearshift.training.settings import Optim, TrainingSettings


# Adafactor scales its steps by the root mean square of a weight, but at least by this. At 1, steps
# equal the learning rate, as with AdamW, for all smaller weights.
_ABSOLUTE = 1.0


def spec(
    settings: TrainingSettings,
    model: Module,
    world: World,
    blocks: Sequence[Module] = (),
    task: object = None,
) -> OptimizerSpec:
    """How to optimize `model`: weights with two or more axes decay, others do not.

    Muon updates the matrices of `blocks`. Empty groups are omitted: some engines do not accept
    them. A `task` may have its own optimizer. Raises EngineError if there is no matrix, and
    SettingError for a part that the model does not have.
    """
    optim = settings.optim
    if isinstance(task, HasOptimizer):
        build = partial(_of_task, task)
        of_task = OptimizerSpec([{}], lambda name, parameter: 0, build, optim.clip_norm)
        return of_task if settings.train.on_nonfinite == "stop" else guarded(of_task, world)
    matrices = _matrices(model, blocks) if optim.name == "muon" else set()

    def kind(name: str, parameter: Parameter) -> tuple[bool, bool]:
        return name in matrices, parameter.ndim >= 2

    kinds = {kind(name, p) for name, p in model.named_parameters() if p.requires_grad}
    order = sorted(kinds, reverse=True)
    plain = OptimizerSpec(
        [
            {"weight_decay": optim.weight_decay if decays else 0.0}
            | ({"momentum": optim.used_momentum} if is_matrix else {})
            for is_matrix, decays in order
        ],
        lambda name, parameter: order.index(kind(name, parameter)),
        _build(optim),
        optim.clip_norm,
    )
    if optim.name == "adamw" and optim.state != "fp32":
        from gearshift.training.optim.low_bit import small_apart  # imports torch.distributed.tensor

        plain = small_apart(plain)
    if optim.groups or optim.layer_decay is not None:
        from gearshift.training.optim.groups import (
            lr_factors,
            with_factors,
        )  # where a part has a factor

        plain = with_factors(plain, lr_factors(optim, model, task), model)
    return plain if settings.train.on_nonfinite == "stop" else guarded(plain, world)


def _of_task(task: HasOptimizer, groups: list[dict[str, Any]]) -> Optimizer:
    """The optimizer that `task` makes of all parameters. Raises EngineError."""
    (group,) = groups
    what = f"{type(task).__name__}.optimizer"
    optimizer = task.optimizer(group["params"])
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise EngineError(
            f"{what} returns a {type(optimizer).__name__}, not a torch.optim.Optimizer"
        )
    held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    if sorted(held) != sorted(map(id, group["params"])):
        raise EngineError(
            f"{what} has {len(held)} parameters, and the model trains {len(group['params'])}; "
            "freeze the others in build with requires_grad_(False)"
        )
    are_sharded = any(hasattr(parameter, "to_local") for parameter in group["params"])
    if isinstance(optimizer, torch.optim.Adafactor) and are_sharded:
        raise EngineError(
            f"{what} is Adafactor, which needs whole rows; use an engine that keeps all weights on each rank"
        )
    return optimizer


def _matrices(model: Module, blocks: Sequence[Module]) -> set[str]:
    """The names of the weights with two axes in `blocks`, but embeddings."""
    modules = [m for b in blocks for m in b.modules() if not isinstance(m, torch.nn.Embedding)]
    inside = {id(p) for module in modules for p in module.parameters(recurse=False)}
    matrices = {n for n, p in model.named_parameters() if p.ndim == 2 and id(p) in inside}
    if not matrices:
        raise EngineError(
            "optim.name=muon updates the weights of blocks that are matrices; this model has none; use adamw"
        )
    return matrices


def _build(settings: Optim) -> Callable[[list[dict[str, Any]]], Optimizer]:
    if settings.name == "sgd":
        return partial(_fastest, torch.optim.SGD, lr=settings.lr, momentum=settings.used_momentum)
    if settings.name == "adafactor":
        return partial(torch.optim.Adafactor, lr=settings.lr, eps=(None, _ABSOLUTE))
    beta1, beta2 = settings.betas
    kind: Callable[..., Optimizer] = torch.optim.AdamW
    if settings.name == "muon":
        from gearshift.training.optim.muon import Muon  # imports torch.distributed.tensor

        kind = Muon
    elif settings.state != "fp32":
        from gearshift.training.optim.low_bit import LowBitAdamW  # the same

        kind = partial(LowBitAdamW, state=settings.state)
    return partial(_fastest, kind, lr=settings.lr, betas=(beta1, beta2), eps=settings.eps)


def _fastest(
    kind: Callable[..., Optimizer], groups: list[dict[str, Any]], **options: Any
) -> Optimizer:
    """The fused optimizer, or the default implementation of torch if there is no fused kernel."""
    parameters = [p for group in groups for p in group["params"]]
    # Since torch 2.6 all supported devices have the kernels, for real numbers only.
    is_fused = all(p.is_floating_point() for p in parameters)
    if kind is torch.optim.SGD and any(hasattr(p, "to_local") for p in parameters):
        is_fused = False  # "aten._fused_sgd_ does not have a sharding strategy" (torch 2.13, FSDP)
    return kind(groups, fused=is_fused, **options)
