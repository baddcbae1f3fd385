"""The optimizer spec of a run; engines build the optimizer once they have placed parameters."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from engines.base import OptimizerSpec
from training.optim.nonfinite import guarded

if TYPE_CHECKING:
    from torch.nn import Module
    from torch.optim import Optimizer

    from engines.base import World
    from training.settings import Optim, Settings


_ABSOLUTE = 1.0
"""Adafactor scales its steps by the root mean square of a weight, but at least by this.

At 1, steps equal the learning rate, as with AdamW, for all smaller weights.
"""


def spec(settings: Settings, model: Module, world: World) -> OptimizerSpec:
    """How to optimize `model`: weights with two or more axes decay, others do not.

    Empty groups are omitted: some engines do not accept them.
    """
    decay = settings.optim.weight_decay
    decays = dict.fromkeys(p.ndim >= 2 for p in model.parameters() if p.requires_grad)
    order = sorted(decays, reverse=True)
    plain = OptimizerSpec(
        options=[{"weight_decay": decay if decaying else 0.0} for decaying in order],
        group_of=lambda name, parameter: order.index(parameter.ndim >= 2),
        build=_build(settings.optim),
        clip_norm=settings.optim.clip_norm,
    )
    return plain if settings.train.on_nonfinite == "stop" else guarded(plain, world)


def _build(settings: Optim) -> Callable[[list[dict[str, Any]]], Optimizer]:
    if settings.name == "sgd":
        return partial(_fastest, torch.optim.SGD, lr=settings.lr, momentum=settings.momentum)
    if settings.name == "adafactor":
        return partial(torch.optim.Adafactor, lr=settings.lr, eps=(None, _ABSOLUTE))
    beta1, beta2 = settings.betas
    return partial(
        _fastest, torch.optim.AdamW, lr=settings.lr, betas=(beta1, beta2), eps=settings.eps
    )


def _fastest(kind: type[Optimizer], groups: list[dict[str, Any]], **options: Any) -> Optimizer:
    """The fused optimizer, or the default implementation of torch if there is no fused kernel."""
    parameters = [p for group in groups for p in group["params"]]
    # Since torch 2.6 all supported devices have the kernels, for real numbers only.
    is_fused = all(p.is_floating_point() for p in parameters)
    if kind is torch.optim.SGD and any(hasattr(p, "to_local") for p in parameters):
        is_fused = False  # "aten._fused_sgd_ does not have a sharding strategy" (torch 2.13, FSDP)
    return kind(groups, fused=is_fused, **options)  # type: ignore[call-arg]
