"""Optimizer state sharded over ranks by FairScale's OSS; weights and gradients on every rank."""

from __future__ import annotations

from typing import Any

from fairscale.optim.oss import OSS
from torch.optim import Optimizer

from engines.base import Engine, OptimizerSpec, Options, World
from engines.ddp import BucketedAveraging
from engines.replicated import Replicated


def oss(world: World, options: Options) -> Engine:
    """The engine oss: each parameter is updated by one rank, which sends it to the others.

    Gradients are averaged by torch's DDP; FairScale's own ShardedDDP is not kept up with torch.
    """
    return Replicated(world, options, BucketedAveraging, WholeParameters())


class WholeParameters:
    """Each parameter goes to the rank that has the fewest elements so far."""

    def build(self, spec: OptimizerSpec, groups: list[dict[str, Any]]) -> Optimizer:
        return OSS(groups, optim=lambda own, **_: spec.build(own))

    def own(self, optimizer: Any) -> Optimizer:
        return optimizer.optim
