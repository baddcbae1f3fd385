"""Time of a step, an epoch and a run, from the data sheet of a GPU."""

from __future__ import annotations

from dataclasses import dataclass, replace
from operator import itemgetter
from typing import TYPE_CHECKING

from gearshift.engines.catalog import ENGINES
from gearshift.training.throughput import Gpu
from gearshift.training.train_plan import TrainPlan

if TYPE_CHECKING:
    from gearshift.launcher.plan.plan import Plan

_LARGE = 400e6
"""Parameters from which on the shares of the large model count: the geometric mean of the two."""
_HOST_LINK = 63e9
"""Bytes per second in one direction of PCI Express 5.0 with 16 lanes: 32 GT/s, 128b/130b."""
SHARES = {
    ("124M", "replicated"): 0.579,
    ("1.3B", "replicated"): 0.722,
    ("124M", "sharded"): 0.469,
    ("1.3B", "sharded"): 0.682,
    ("124M", "host"): 0.224,
    ("1.3B", "host"): 0.227,
}
"""FLOP/s of plain PyTorch, fully_shard and DeepSpeed with offload over those of a matrix product
on one H200, in bf16 and compiled, by parameters and by where weights, or with offload any part,
are: the measured anchors of benchmarks/gpu.py."""


@dataclass(frozen=True)
class Seconds:
    """Predicted times in seconds; None: unknown."""

    step: float | None
    epoch: float | None
    run: float | None
    basis: str
    is_least: bool = False
    """They are lower bounds."""


UNKNOWN = Seconds(None, None, None, "none: --gpu NAME uses data sheets")


def by_data_sheet(plan: Plan, gpu: Gpu, precision: str, train_plan: TrainPlan) -> Seconds:
    """Roofline: the longest of computation, memory and links, which overlap.

    Starting, reading data, evaluating and saving are not part of it, nor are links between nodes.
    """
    peak = gpu.peaks.get(precision)
    if peak is None:
        return replace(UNKNOWN, basis=f"none: the data sheet of {gpu.name} has no {precision}")
    model = "1.3B" if plan.parameters > _LARGE else "124M"
    placement = ENGINES[plan.engine].placement
    share = SHARES[model, "host" if placement.offloads else placement.weights]
    flops = f"{share:.0%} of {peak / 1e12:g} TFLOP/s in {precision}"
    parts = {flops: plan.trace.flops / peak / share}
    of_links = gpu.link_bytes_per_s if plan.target.nodes == 1 else None
    for name, size, speed in (
        ("memory", plan.moved_bytes, gpu.memory_bytes_per_s),
        ("host link", 2 * plan.batching.accumulation * plan.trace.offloaded, _HOST_LINK),
        ("links", plan.placed.sent_bytes, of_links),
    ):
        if speed is not None:
            parts[f"{name} at {speed / 1e9:g} GB/s"] = size / speed
    limit, step = max(parts.items(), key=itemgetter(1))
    basis = (
        f"data sheet of {gpu.name}, {limit}; the share of the peak is that of PyTorch "
        f"with {model} parameters on an H200, of a matrix product"
    )
    run = train_plan.end_step * step
    if train_plan.time_s is not None:
        run = min(run, train_plan.time_s)
    return Seconds(step, train_plan.steps_per_epoch * step, run, basis, is_least=True)
