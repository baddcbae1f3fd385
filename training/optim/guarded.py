"""An optimizer that skips updates with a gradient that is not finite."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gearshift.training.optim.updater import are_finite

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from gearshift.engines.base import OptimizerSpec, World


def guarded(spec: OptimizerSpec, world: World) -> OptimizerSpec:
    """`spec` with an optimizer that skips updates with a NaN or infinite gradient.

    All ranks skip together. Engines clip and update in one call, so only a hook of the optimizer
    sees the gradients in between. Every update waits for the device.
    """
    from gearshift.training.optim.shards import shard  # where updates may be skipped

    def build(groups: list[dict[str, Any]]) -> Optimizer:
        optimizer = spec.build(groups)
        optimizer.register_step_pre_hook(drop_nonfinite)
        return optimizer

    def drop_nonfinite(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        gradients = [shard(p.grad) for p in parameters if p.grad is not None]
        if world.agree(int(not are_finite(gradients))):
            for parameter in parameters:
                parameter.grad = None

    return replace(spec, build=build)
