"""Time of a step, an epoch and a run, from the data sheet of a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from operator import itemgetter

from gearshift.engines.catalog import Placement
from gearshift.launcher.plan.storages import Kind
from gearshift.launcher.plan.target import PlanTarget
from gearshift.training.throughput import Gpu
from gearshift.training.train_plan import TrainPlan

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


def moved_bytes(
    held: Mapping[Kind, int], trainable: int, accumulation: int, offloaded: int = 0
) -> float:
    """Bytes that a step moves at least, of a rank that holds `held`.

    Each micro-batch reads the weights forward and backward, and writes and reads its activations,
    those `offloaded` to the host and back twice.
    The update reads fp32 gradients, and reads and writes weights and optimizer state.
    """
    weights = held[Kind.WEIGHTS]
    each = 2 * weights + 2 * held[Kind.ACTIVATIONS] + 4 * offloaded
    return accumulation * each + 4 * trainable + 2 * (weights + held[Kind.OPTIMIZER])


@dataclass(frozen=True)
class StepWork:
    """What a rank does in a step."""

    flops: float
    moved: float
    """Bytes from and to its memory, at least."""
    sent: float
    """Bytes."""
    copied: float
    """Bytes to the host and back."""


def by_data_sheet(
    work: StepWork,
    gpu: Gpu,
    precision: str,
    target: PlanTarget,
    placement: Placement,
    parameters: int,
    plan: TrainPlan,
) -> Seconds:
    """Roofline: the longest of computation, memory and links, which overlap.

    Starting, reading data, evaluating and saving are not part of it, nor are links between nodes.
    """
    peak = gpu.peaks.get(precision)
    if peak is None:
        return replace(UNKNOWN, basis=f"none: the data sheet of {gpu.name} has no {precision}")
    model = "1.3B" if parameters > _LARGE else "124M"
    share = SHARES[model, "host" if placement.offloads else placement.weights]
    parts = {f"{share:.0%} of {peak / 1e12:g} TFLOP/s in {precision}": work.flops / peak / share}
    of_links = gpu.link_bytes_per_s if target.nodes == 1 else None
    for name, size, speed in (
        ("memory", work.moved, gpu.memory_bytes_per_s),
        ("host link", work.copied, _HOST_LINK),
        ("links", work.sent, of_links),
    ):
        if speed is not None:
            parts[f"{name} at {speed / 1e9:g} GB/s"] = size / speed
    limit, step = max(parts.items(), key=itemgetter(1))
    basis = (
        f"data sheet of {gpu.name}, {limit}; the share of the peak is that of PyTorch "
        f"with {model} parameters on an H200, of a matrix product"
    )
    run = plan.end_step * step
    if plan.time_s is not None:
        run = min(run, plan.time_s)
    return Seconds(step, plan.steps_per_epoch * step, run, basis, is_least=True)
