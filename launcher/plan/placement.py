"""The peak of a rank and its traffic under each engine, from the trace of one step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from gearshift.engines.catalog import Placement
from gearshift.engines.ddp import BUCKET_BYTES
from gearshift.launcher.plan.step_trace import StepTrace
from gearshift.launcher.plan.storages import Kind, Phase, fullest

FP32_BYTES = 4
_FP64_BYTES = 8
DEFAULTS: Mapping[str, Any] = {
    "contiguous_gradients": True,
    "reduce_bucket_size": 500_000_000,
    "reduce_scatter": True,
    "stage3_max_reuse_distance": 1_000_000_000,
    "stage3_param_persistence_threshold": 100_000,
    "stage3_prefetch_bucket_size": 50_000_000,
    "sub_group_size": 1_000_000_000,
    "use_multi_rank_bucket_allreduce": True,
}
"""DeepSpeed's own values of what a `zero_optimization` block may leave out."""


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


def as_traced(trace: StepTrace, ranks: int, *, offloads: bool, on_cpu: bool) -> Placed:
    """The engine was traced itself: local, or fsdp with its collectives.

    `offloads`: shards of weights, gradients and optimizer are in host memory. `on_cpu`: that is the
    memory of the device, too, and the peak is that of both together. Otherwise torch pins the
    memory of each gradient, a power of two.
    """
    held = trace.moments.held.copy()
    if not offloads:
        return Placed(fullest(held), 0, trace.sent)
    if on_cpu:
        held = held[[held.sum(1).argmax()]]
    moved = [Kind.WEIGHTS, Kind.GRADIENTS, Kind.OPTIMIZER]
    host = int(held[:, moved].sum(1).max())
    held[:, moved] = 0
    if not on_cpu:
        shards = (FP32_BYTES * -(-numel // ranks) for numel in chain(*trace.groups))
        host += sum((1 << (size - 1).bit_length()) - size for size in shards)
    return Placed(fullest(held), host, trace.sent)


def replicated(trace: StepTrace, ranks: int, accumulation: int, placement: Placement) -> Placed:
    """An engine with full weights and gradients, and maybe shards of the optimizer state.

    Gradients stay in buckets from the first step on; a new one is beside its bucket. So are those
    of all micro-batches but the last one of a step, which moves them to the buckets one by one.
    What the trace sent is of an optimizer whose ranks divide its work.
    """
    if ranks == 1:
        return Placed(trace.moments.peak, 0, 0.0)
    phase, held, computed = (array.copy() for array in trace.moments)
    gradients = FP32_BYTES * trace.trainable
    numels = [*chain(*trace.groups)]
    away = (ranks - 1) / ranks  # the part of a tensor that other ranks have when all share it
    sent = 2 * away * gradients + trace.sent
    share = 1.0
    if placement.optimizer != "replicated":
        sent = 3 * away * gradients
        parts = [0] * ranks  # FairScale gives the next parameter to the emptiest
        for numel in numels:
            parts[parts.index(min(parts))] += numel
        share = max(parts) / max(sum(parts), 1)
    in_update = phase == Phase.UPDATE
    beside = held[:, Kind.GRADIENTS] - (_passes(phase) == accumulation) * (FP32_BYTES * computed)
    beside[in_update] = 0
    held[:, Kind.GRADIENTS] = gradients + (accumulation > 1) * beside.clip(0)
    held[:, Kind.OPTIMIZER] = np.rint(share * held[:, Kind.OPTIMIZER])
    # The first update averages bucket by bucket the gradients that it has.
    bucket = min(gradients, max(BUCKET_BYTES, FP32_BYTES * max(numels, default=0)))
    held[in_update, Kind.COMMUNICATION] += bucket
    return Placed(fullest(held), 0, sent)


def zero(
    trace: StepTrace, ranks: int, accumulation: int, zero_optimization: Mapping[str, Any]
) -> Placed:
    """DeepSpeed with a `zero_optimization` block of its config; formulas of version 0.19.8.

    Stages 1 and 2 have all weights on every rank; each updates an equal part of the flat tensor of
    each group. A gradient goes into a bucket when it is complete, and from there to the rank of its
    part. In fp32 the parts of a micro-batch are new tensors, to which those before are added; in 16
    bits there is one fp32 tensor for all.

    Under stage 3 each rank has an equal part of each weight, of its gradient, and of what updates
    it. Small weights stay gathered. Others are gathered ahead of the layer that needs them, and
    stay if a layer needs them again soon: by default from the forward to the backward pass.
    """

    def part_of(count: int) -> int:
        return -(-count // ranks)

    layout = {**DEFAULTS, **zero_optimization}
    stage = layout["stage"]
    bucket = layout["reduce_bucket_size"]
    is_contiguous = bool(layout["contiguous_gradients"])
    offloads, offloads_weights = (
        layout.get(f"offload_{kind}", {}).get("device") == "cpu" for kind in ("optimizer", "param")
    )
    size = round(trace.weight_bytes / trace.parameters)  # of an element; frozen ones are rounded
    is_fp32 = size == FP32_BYTES
    several = accumulation > 1
    groups = trace.groups
    largest = max(chain(*trace.groups))
    optimizer = part_of(trace.slot_bytes)
    weights = trace.buffer_bytes
    host = 0
    # The last bucket is averaged when the backward pass is complete: a moment of its own.
    end = np.flatnonzero(trace.moments.phase == Phase.UPDATE)[:1]
    rows = np.insert(np.arange(len(trace.moments.phase)), end, end)
    phase, held, computed = (array[rows] for array in trace.moments)
    phase[end] = Phase.BACKWARD
    computed[end] = np.iinfo(computed.dtype).max
    is_later = _passes(phase) > 1
    is_averaged = computed > bucket
    gradients: Any = 0
    if stage < 3:
        parts = [2 * -(-sum(group) // (2 * ranks)) for group in groups]  # they are aligned
        part = FP32_BYTES * sum(parts)
        is_whole = stage == 1 and several
        in_bucket = FP32_BYTES if stage == 1 else size
        weights += trace.weight_bytes
        optimizer += part
        kept = 0 if offloads and is_fp32 else part
        gradients = kept * (is_later & (not is_whole)) + kept * (
            is_averaged & (~is_later | is_fp32 | is_whole)
        )
        if is_whole:
            gradients += held[:, Kind.GRADIENTS] * FP32_BYTES // size
        # The bucket is copied, and in 16 bits that copy is then copied to fp32.
        copies = in_bucket + FP32_BYTES * (in_bucket < FP32_BYTES)
        count = (1 + bool(layout.get("overlap_comm"))) * is_contiguous
        always = 0
        buffers = in_bucket * count * bucket * (computed > 0)
        # Gradients are measured one by one in fp64, then copied group by group.
        measured = _FP64_BYTES * min(largest, sum(parts))
        update = kept + max(measured, is_fp32 * FP32_BYTES * max(parts))
        if offloads:  # gradients, those of other micro-batches, and weights on their way back
            always = size * largest
            update = kept
            host = part + size * (sum(parts) + largest) + is_fp32 * several * part
        gathered = trace.trainable
    else:
        part = FP32_BYTES * sum(map(part_of, chain(*groups)))
        shards = size * (part // FP32_BYTES + part_of(trace.parameters - trace.trainable))
        small = layout["stage3_param_persistence_threshold"]
        persistent = sum(numel for numel in trace.sizes if numel <= small)
        others = trace.parameters - persistent
        most = max(trace.sizes)
        soon = layout["stage3_max_reuse_distance"] // 2
        fetched = layout["stage3_prefetch_bucket_size"]
        ahead = min(others, soon + 2 * fetched + most)
        arriving = min(ahead, fetched + most) * (phase == Phase.FORWARD)
        weights += size * persistent + shards
        optimizer += 2 * part
        copies = FP32_BYTES
        always = FP32_BYTES * bucket * is_contiguous
        buffers = size * (ranks > 1) * (ahead + arriving)
        update = max(
            min(part, FP32_BYTES * layout["sub_group_size"]), _FP64_BYTES * part_of(largest)
        )
        if offloads:
            moved = shards * offloads_weights
            weights = weights - moved
            host = moved + part
            update = 0
        gathered = persistent + accumulation * (2 * others - min(others, soon + fetched))
    if offloads:
        optimizer, host = 0, host + optimizer
    buffers = buffers + always + copies * min(bucket, trace.trainable) * is_averaged
    in_update = phase == Phase.UPDATE
    held[:, Kind.WEIGHTS] = weights
    held[:, Kind.OPTIMIZER] = optimizer
    held[:, Kind.GRADIENTS] = np.where(in_update, update, gradients)
    held[:, Kind.COMMUNICATION] = np.where(in_update, always, buffers)
    held[in_update, Kind.TEMPORARIES] //= ranks
    # Stages 1 and 2 give every rank the means of all gradients, and keep those of its part.
    goes_to_one = layout["reduce_scatter"] and not layout["use_multi_rank_bucket_allreduce"]
    rounds = 1 if stage == 3 or goes_to_one else 2
    reduced = rounds * (1 if stage == 1 else accumulation) * FP32_BYTES * trace.trainable
    return Placed(fullest(held), host, (ranks - 1) / ranks * (reduced + size * gathered))


def _passes(phase: np.ndarray) -> np.ndarray:
    """The number of forward passes so far."""
    return (np.diff(phase == Phase.FORWARD, prepend=False) & (phase == Phase.FORWARD)).cumsum()
