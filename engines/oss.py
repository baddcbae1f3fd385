"""Optimizer state sharded over ranks by FairScale's OSS; weights and gradients on every rank."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from fairscale.optim.oss import OSS
from torch.optim import Optimizer

from gearshift.engines.base import Engine, OptimizerSpec, Options, SharesWork, World
from gearshift.engines.ddp import BucketedAveraging
from gearshift.engines.replicated import Replicated


def oss(world: World, options: Options) -> Engine:
    """The engine oss: one rank updates each parameter and broadcasts it to the others.

    torch's DDP averages the gradients; FairScale's own ShardedDDP is not maintained.
    """
    return Replicated(world, options, BucketedAveraging, _sharded)


def _sharded(spec: OptimizerSpec) -> OptimizerSpec:
    """The recipe that assigns each parameter to the rank with the fewest elements so far."""

    def part(groups: list[dict[str, Any]], **_: Any) -> Optimizer:
        optimizer = spec.build(groups)
        if isinstance(optimizer, SharesWork):
            optimizer.shares_work = False
        return optimizer

    return replace(spec, build=partial(OSS, optim=part))
