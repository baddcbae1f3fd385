"""The peak of a rank and its traffic under each engine, from the trace of one step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from launcher.plan.step_trace import StepTrace
from launcher.plan.storages import Kind, Moment, Phase

_FP32_BYTES = 4
_ROUNDS = {"allreduce": 2, "all_reduce": 2}
"""How often a ring passes the data around; once for other collectives."""


@dataclass(frozen=True)
class Placed:
    """What one rank holds at its peak, and what it sends in a step."""

    device: Mapping[Kind, int]
    """Bytes of each kind in the memory of the device."""
    offloaded_bytes: int
    """Weights, gradients and optimizer state in host memory instead."""
    sent_bytes: float
    """On the wire per step, with ring algorithms."""

    @property
    def device_bytes(self) -> int:
        """All bytes on the device."""
        return sum(self.device.values())


@dataclass(frozen=True)
class Ranks:
    """The ranks of a run."""

    size: int
    accumulation: int

    @property
    def away(self) -> float:
        """The share of a tensor that is on other ranks when it is sharded over all."""
        return (self.size - 1) / self.size


def as_traced(trace: StepTrace, ranks: Ranks, *, offloads: bool = False) -> Placed:
    """The engine was traced itself: local, or fsdp with its collectives.

    `offloads`: shards of weights, gradients and optimizer are in host memory.
    """
    sent = 0.0
    for name, bytes_ in trace.sent.items():
        rounds = next((n for prefix, n in _ROUNDS.items() if name.startswith(prefix)), 1)
        again = ranks.accumulation / trace.micro_batches if "gather" in name else 1
        sent += rounds * again * ranks.away * bytes_
    if not offloads:
        return Placed(trace.peak.held, 0, sent)
    moved = (Kind.WEIGHTS, Kind.GRADIENTS, Kind.OPTIMIZER)
    device = _peak(_without(moment, moved) for moment in trace.moments)
    host = max(sum(moment.held[kind] for kind in moved) for moment in trace.moments)
    return Placed(device, host, sent)


def replicated(trace: StepTrace, ranks: Ranks, optimizer_ranks: int) -> Placed:
    """ddp, and oss with its optimizer state on `optimizer_ranks`, from the trace of local.

    Gradients stay in buckets from the first step on; a new one is beside its bucket.
    """
    gradients = _FP32_BYTES * trace.trainable
    sent = 2 * ranks.away * gradients

    def placed(moment: Moment) -> dict[Kind, int]:
        held = dict(moment.held)
        held[Kind.GRADIENTS] = gradients
        held[Kind.OPTIMIZER] = -(-held[Kind.OPTIMIZER] // optimizer_ranks)
        return held

    if ranks.size == 1:
        return Placed(trace.peak.held, 0, 0.0)
    if optimizer_ranks > 1:
        sent += ranks.away * trace.weight_bytes
    return Placed(_peak(map(placed, trace.moments)), 0, sent)


def zero(trace: StepTrace, ranks: Ranks, layout: Mapping[str, Any]) -> Placed:
    """DeepSpeed's ZeRO, from the trace of local with its weights.

    `layout`: `zero_optimization` of its config. Each rank keeps fp32 master weights, gradients
    and slots of its part; the update copies its part of the gradients into one tensor.
    """
    part = _FP32_BYTES * -(-trace.trainable // ranks.size)
    optimizer = part + _FP32_BYTES * -(-trace.slots // ranks.size)
    weight_bytes = trace.weight_bytes
    offloads = layout.get("offload_optimizer", {}).get("device") == "cpu"
    is_sharded = layout["stage"] == 3
    weights = -(-weight_bytes // ranks.size) if is_sharded else weight_bytes
    gathered = weight_bytes - weights if is_sharded else 0

    def placed(moment: Moment) -> dict[Kind, int]:
        held = dict(moment.held)
        is_update = moment.phase is Phase.UPDATE
        held[Kind.WEIGHTS] = weights
        held[Kind.GRADIENTS] = 0 if offloads else part * (2 if is_update else 1)
        held[Kind.OPTIMIZER] = 0 if offloads else optimizer
        held[Kind.COMMUNICATION] = 0 if is_update else gathered
        if is_update:
            held[Kind.TEMPORARIES] //= ranks.size
        return held

    reduced = _FP32_BYTES * trace.trainable
    passes = 1 if layout["stage"] == 1 else ranks.accumulation
    gathers = 2 * ranks.accumulation if is_sharded else 1
    sent = ranks.away * (passes * reduced + gathers * weight_bytes)
    host = optimizer + 2 * part if offloads else 0
    return Placed(_peak(map(placed, trace.moments)), host, sent)


def _without(moment: Moment, kinds: tuple[Kind, ...]) -> dict[Kind, int]:
    return {kind: 0 if kind in kinds else n for kind, n in moment.held.items()}


def _peak(moments: Iterator[Mapping[Kind, int]]) -> Mapping[Kind, int]:
    return max(moments, key=lambda held: sum(held.values()))
