"""The estimated cost of a step, by which plans are compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from launcher.plan.plan import Plan


@dataclass(frozen=True)
class _Speeds:
    """What a rank does in a second, roughly: only ratios between engines count."""

    flops: float
    memory_bytes: float
    sent_bytes: float
    offloaded_bytes: float
    start_s: float
    """To start a kernel."""


_GPU = _Speeds(1e14, 1.5e12, 5e10, 1e10, 5e-6)
_CPU = _Speeds(3e10, 5e9, 5e8, 5e9, 1e-6)


def cost(plan: Plan) -> float:
    """Estimated seconds of a step, for comparing plans only.

    Operations, the update, traffic and offload, one after the other.
    """
    from launcher.plan.storages import Kind

    speeds = _CPU if plan.target.device == "cpu" else _GPU
    update = 2 * (plan.device[Kind.OPTIMIZER] + plan.device[Kind.WEIGHTS])
    return (
        plan.flops / speeds.flops
        + update / speeds.memory_bytes
        + plan.sent_bytes / speeds.sent_bytes
        + plan.copied_bytes / speeds.offloaded_bytes
        + start_s(plan)
    )


def start_s(plan: Plan) -> float:
    """Estimated seconds to start the kernels of a step."""
    return plan.launches * (_CPU if plan.target.device == "cpu" else _GPU).start_s
