"""An optimizer that skips updates with a gradient that is not finite."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from gearshift.engines.base import OptimizerSpec, World
from gearshift.training.optim.shards import Groups, shard


def guarded(spec: OptimizerSpec, world: World) -> OptimizerSpec:
    """`spec` with an optimizer that skips updates with a NaN or infinite gradient.

    All ranks skip together. Engines clip and update in one call, so only a hook of the optimizer
    sees the gradients in between. Every update waits for the device.
    """

    def build(groups: Groups) -> Optimizer:
        optimizer = spec.build(groups)
        optimizer.register_step_pre_hook(drop_nonfinite)
        return optimizer

    def drop_nonfinite(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        gradients = [shard(p.grad) for p in parameters if p.grad is not None]
        largest = get_total_norm([g for g in gradients if g.numel()], math.inf)
        if world.agree(int(not torch.isfinite(largest))):
            for parameter in parameters:
                parameter.grad = None

    return replace(spec, build=build)
