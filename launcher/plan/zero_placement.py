"""What a rank holds under DeepSpeed's ZeRO, from the trace of local; formulas of version 0.19.8."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from launcher.plan.placement import FP32_BYTES, Placed, Ranks, fullest, with_passes
from launcher.plan.step_trace import StepTrace
from launcher.plan.storages import Kind, Moment, Phase

_FP64 = 8
"""In which gradients are measured, one tensor at a time."""
_ALIGNMENT = 2
"""Elements of each rank's part of a flat tensor are a multiple of it."""
DEFAULTS: Mapping[str, Any] = {
    "contiguous_gradients": True,
    "reduce_bucket_size": 500_000_000,
    "reduce_scatter": True,
    "stage3_max_reuse_distance": 1_000_000_000,
    "stage3_model_persistence_threshold": sys.maxsize,
    "stage3_param_persistence_threshold": 100_000,
    "stage3_prefetch_bucket_size": 50_000_000,
    "sub_group_size": 1_000_000_000,
    "use_multi_rank_bucket_allreduce": True,
}
"""DeepSpeed's own values of what a `zero_optimization` block may leave out."""


@dataclass(frozen=True)
class Kept:
    """Bytes of a rank; on the device, but for `host`."""

    weights: int
    optimizer: int
    """Slots and fp32 weights of the part that this rank updates."""
    update: int
    """Gradients during the update."""
    bucket: int
    """Elements of gradients that are averaged together."""
    copies: int
    """What averaging makes of a bucket, until it is complete."""
    between: int = 0
    """Gradients between the micro-batches of a step."""
    averaged: int = 0
    """Gradients once a bucket is averaged."""
    averaged_later: int = 0
    """The same in later micro-batches of a step, beside `between`."""
    buckets: int = 0
    """Buffers from the first gradient of a backward pass to its end."""
    always: int = 0
    """Buffers that are never freed."""
    gathered: int = 0
    """Weights of other ranks, from the forward pass to the end of the backward pass."""
    fetched: int = 0
    """What weights arrive in, in a forward pass, before each is a tensor of its own."""
    host: int = 0
    """In the memory of the host."""
    whole_gradients: float = 0.0
    """Of the bytes of the gradients of local, if they stay whole until the last micro-batch."""


def zero(trace: StepTrace, ranks: Ranks, zero_optimization: Mapping[str, Any]) -> Placed:
    """The peak and the traffic under a `zero_optimization` block of DeepSpeed's config."""
    layout = {**DEFAULTS, **zero_optimization}
    is_sharded = layout["stage"] == 3
    rank_bytes = (
        _stage_3(trace, ranks, layout) if is_sharded else _stages_1_and_2(trace, ranks, layout)
    )
    passes = 1 if layout["stage"] == 1 else ranks.accumulation
    # Stages 1 and 2 give every rank the means of all gradients, and keep those of its part.
    goes_to_one = layout["reduce_scatter"] and not layout["use_multi_rank_bucket_allreduce"]
    rounds = 1 if is_sharded or goes_to_one else 2
    gathered = _gathered(trace, ranks, layout) if is_sharded else trace.trainable
    reduced = rounds * passes * FP32_BYTES * trace.trainable
    sent = ranks.away * (reduced + _weight_size(trace) * gathered)
    return Placed(fullest(_moments(trace, ranks, rank_bytes)), rank_bytes.host, sent)


def _moments(trace: StepTrace, ranks: Ranks, rank_bytes: Kept) -> Iterator[Mapping[Kind, int]]:
    before = Phase.UPDATE
    for moment, passes in with_passes(trace.moments):
        if moment.phase is Phase.UPDATE and before is not Phase.UPDATE:
            # The last bucket is averaged when the backward pass is complete.
            yield _in_passes(moment, rank_bytes, sys.maxsize, is_later=passes > 1)
        if moment.phase is Phase.UPDATE:
            yield _in_update(moment, rank_bytes, ranks)
        else:
            yield _in_passes(moment, rank_bytes, moment.computed, is_later=passes > 1)
        before = moment.phase


def _in_passes(
    moment: Moment, rank_bytes: Kept, computed: int, *, is_later: bool
) -> Mapping[Kind, int]:
    """`computed`: elements of gradients; averaged as soon as they are more than a bucket."""
    held = dict(moment.held)
    held[Kind.WEIGHTS], held[Kind.OPTIMIZER] = rank_bytes.weights, rank_bytes.optimizer
    held[Kind.GRADIENTS] = round(rank_bytes.whole_gradients * held[Kind.GRADIENTS])
    held[Kind.COMMUNICATION] = rank_bytes.always + rank_bytes.gathered
    if is_later:
        held[Kind.GRADIENTS] += rank_bytes.between
    if moment.phase is Phase.FORWARD:
        held[Kind.COMMUNICATION] += rank_bytes.fetched
    if computed:
        held[Kind.COMMUNICATION] += rank_bytes.buckets
    if computed > rank_bytes.bucket:
        held[Kind.GRADIENTS] += rank_bytes.averaged_later if is_later else rank_bytes.averaged
        held[Kind.COMMUNICATION] += rank_bytes.copies
    return held


def _in_update(moment: Moment, rank_bytes: Kept, ranks: Ranks) -> Mapping[Kind, int]:
    held = dict(moment.held)
    held[Kind.WEIGHTS], held[Kind.OPTIMIZER] = rank_bytes.weights, rank_bytes.optimizer
    held[Kind.GRADIENTS], held[Kind.COMMUNICATION] = rank_bytes.update, rank_bytes.always
    held[Kind.TEMPORARIES] //= ranks.size
    return held


def _stages_1_and_2(trace: StepTrace, ranks: Ranks, layout: Mapping[str, Any]) -> Kept:
    """Weights on every rank; each updates an equal part of the flat tensor of each group.

    A gradient goes into a bucket when it is complete, and from there to the rank of its part. In
    fp32 the parts of a micro-batch are new tensors, to which those before are added; the update
    copies them into one. In 16 bits there is one fp32 tensor for all.
    """
    size, stage, accumulates = _weight_size(trace), layout["stage"], ranks.accumulation > 1
    parts = [_part(sum(group), ranks.size) for group in trace.groups]
    part, largest = FP32_BYTES * sum(parts), _largest(trace)
    is_fp32, is_whole = size == FP32_BYTES, stage == 1 and accumulates
    count = (1 + bool(layout.get("overlap_comm"))) * bool(layout["contiguous_gradients"])
    bucket = layout["reduce_bucket_size"]
    in_bucket = FP32_BYTES if stage == 1 else size
    optimizer = part + -(-trace.slot_bytes // ranks.size)
    rank_bytes = Kept(
        weights=trace.weight_bytes + trace.buffer_bytes,
        optimizer=optimizer,
        # Gradients are measured one by one in fp64, then copied group by group.
        update=part + max(_FP64 * min(largest, sum(parts)), is_fp32 * FP32_BYTES * max(parts)),
        bucket=bucket,
        # The bucket is copied, and in 16 bits that copy is then copied to fp32.
        copies=(in_bucket + FP32_BYTES * (in_bucket < FP32_BYTES)) * min(bucket, trace.trainable),
        between=0 if is_whole else part,
        averaged=part,
        averaged_later=part if is_fp32 or is_whole else 0,
        buckets=in_bucket * count * bucket,
        whole_gradients=FP32_BYTES / size if is_whole else 0.0,
    )
    if not _offloads(layout):
        return rank_bytes
    # The host has gradients, those of other micro-batches, and weights on their way back.
    on_host = part + size * (sum(parts) + largest) + is_fp32 * accumulates * part
    on_device = 0 if is_fp32 else part
    return replace(
        rank_bytes,
        optimizer=0,
        update=on_device,
        between=on_device,
        averaged=on_device,
        averaged_later=0,
        always=size * largest,
        host=optimizer + on_host,
    )


def _stage_3(trace: StepTrace, ranks: Ranks, layout: Mapping[str, Any]) -> Kept:
    """Each rank has an equal part of each weight, of its gradient, and of what updates it.

    Small weights stay gathered. Others are gathered ahead of the layer that needs them, and stay if
    a layer needs them again soon: by default from the forward to the backward pass.
    """
    size, bucket = _weight_size(trace), layout["reduce_bucket_size"]
    part = sum(-(-numel // ranks.size) for numel in _numels(trace))
    frozen = -(-(trace.parameters - trace.trainable) // ranks.size)
    gradients, shards = FP32_BYTES * part, size * (part + frozen)
    optimizer = FP32_BYTES * part + -(-trace.slot_bytes // ranks.size)
    persistent = _persistent(trace, layout)
    ahead = layout["stage3_max_reuse_distance"] // 2 + 2 * layout["stage3_prefetch_bucket_size"]
    largest = max(trace.sizes)
    gathered = min(trace.parameters - persistent, ahead + largest)
    fetched = min(gathered, layout["stage3_prefetch_bucket_size"] + largest)
    copied = FP32_BYTES * min(part, layout["sub_group_size"])
    is_contiguous = bool(layout["contiguous_gradients"])
    rank_bytes = Kept(
        weights=size * persistent + shards + trace.buffer_bytes,
        optimizer=optimizer + gradients,
        update=max(copied, _FP64 * -(-_largest(trace) // ranks.size)),
        bucket=bucket,
        # The gradients of a bucket are fp32 already: the copy is what ranks exchange.
        copies=FP32_BYTES
        * min(bucket, trace.trainable)
        * (1 if size == FP32_BYTES or is_contiguous else 2),
        always=FP32_BYTES * bucket * is_contiguous,
        gathered=size * gathered if ranks.size > 1 else 0,
        fetched=size * fetched if ranks.size > 1 else 0,
    )
    if not _offloads(layout):
        return rank_bytes
    on_host = shards if layout.get("offload_param", {}).get("device") == "cpu" else 0
    return replace(
        rank_bytes,
        weights=rank_bytes.weights - on_host,
        optimizer=0,
        update=0,
        host=on_host + optimizer + 2 * gradients,
    )


def _gathered(trace: StepTrace, ranks: Ranks, layout: Mapping[str, Any]) -> int:
    """Elements of the weights that stage 3 gathers in a step.

    Small ones after the update, others in each forward pass, and again in the backward pass unless
    that comes so soon that they stay.
    """
    persistent = _persistent(trace, layout)
    others = trace.parameters - persistent
    soon = layout["stage3_max_reuse_distance"] // 2 + layout["stage3_prefetch_bucket_size"]
    return persistent + ranks.accumulation * (2 * others - min(others, soon))


def _weight_size(trace: StepTrace) -> int:
    """Bytes of an element of a weight; frozen ones are rounded as well."""
    return round(trace.weight_bytes / trace.parameters)


def _part(numel: int, ranks: int) -> int:
    return -(-numel // (_ALIGNMENT * ranks)) * _ALIGNMENT


def _numels(trace: StepTrace) -> list[int]:
    return [numel for group in trace.groups for numel in group]


def _largest(trace: StepTrace) -> int:
    return max(_numels(trace))


def _persistent(trace: StepTrace, layout: Mapping[str, Any]) -> int:
    """Elements of the weights that stay gathered."""
    total = 0
    for numel in trace.sizes:
        is_small = numel <= layout["stage3_param_persistence_threshold"]
        if is_small and total + numel <= layout["stage3_model_persistence_threshold"]:
            total += numel
    return total


def _offloads(layout: Mapping[str, Any]) -> bool:
    return bool(layout.get("offload_optimizer", {}).get("device") == "cpu")
