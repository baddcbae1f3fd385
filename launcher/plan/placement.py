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
from gearshift.launcher.plan.storages import Kind, Moments, Phase, fullest
from gearshift.training.callbacks.base import Facts

FP32_BYTES = 4
_FP64_BYTES = 8
DEFAULTS: Facts = {
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
    if not offloads:
        return Placed(fullest(trace.moments.held), 0, trace.sent)
    held = trace.moments.held.copy()
    if on_cpu:
        held = held[[held.sum(1).argmax()]]
    moved = [Kind.WEIGHTS, Kind.GRADIENTS, Kind.OPTIMIZER]
    host = int(held[:, moved].sum(1).max())
    held[:, moved] = 0
    if not on_cpu:
        for numel in chain(*trace.groups):
            size = FP32_BYTES * _part(numel, ranks)
            host += (1 << (size - 1).bit_length()) - size
    return Placed(fullest(held), host, trace.sent)


def replicated(trace: StepTrace, ranks: int, accumulation: int, placement: Placement) -> Placed:
    """An engine with full weights and gradients, and maybe shards of the optimizer state.

    Gradients stay in buckets from the first step on; a new one is beside its bucket. So are those
    of all micro-batches but the last one of a step, which moves them to the buckets one by one.
    What the trace sent is of an optimizer whose ranks divide its work.
    """
    if ranks == 1:
        return Placed(fullest(trace.moments.held), 0, 0.0)
    phase, held, computed = (array.copy() for array in trace.moments)
    gradients = FP32_BYTES * trace.trainable
    numels = [*chain(*trace.groups)]
    away = (ranks - 1) / ranks  # the part of a tensor that other ranks have when all share it
    # An all-reduce passes the gradients around twice; shards of the optimizer then pass on the
    # updated weights.
    sent = 2 * away * gradients + trace.sent
    if placement.optimizer != "replicated":
        sent = 3 * away * gradients
        parts = [0] * ranks  # FairScale gives the next parameter to the emptiest
        for numel in numels:
            parts[parts.index(min(parts))] += numel
        share = max(parts) / max(sum(parts), 1)
        held[:, Kind.OPTIMIZER] = np.rint(share * held[:, Kind.OPTIMIZER])

    in_update = phase == Phase.UPDATE
    # Of one micro-batch each gradient is in its bucket at once.
    beside = 0
    if accumulation > 1:
        is_last = _passes(phase) == accumulation
        beside = (held[:, Kind.GRADIENTS] - is_last * FP32_BYTES * computed).clip(0)
        beside[in_update] = 0
    held[:, Kind.GRADIENTS] = gradients + beside
    # The first update averages bucket by bucket the gradients that it has.
    bucket = min(gradients, max(BUCKET_BYTES, FP32_BYTES * max(numels, default=0)))
    held[in_update, Kind.COMMUNICATION] += bucket
    return Placed(fullest(held), 0, sent)


@dataclass(frozen=True)
class _Step:
    """A step under DeepSpeed, with a moment for the last bucket."""

    trace: StepTrace
    ranks: int
    accumulation: int
    layout: Facts
    moments: Moments

    @property
    def size(self) -> int:
        """Bytes of an element of the weights; frozen ones are rounded."""
        return round(self.trace.weight_bytes / self.trace.parameters)

    @property
    def is_averaged(self) -> np.ndarray:
        """Whether a bucket of gradients was full by that moment."""
        return self.moments.computed > self.layout["reduce_bucket_size"]

    @property
    def largest(self) -> int:
        """Elements of the largest trained parameter."""
        return max(chain(*self.trace.groups))

    def offloads(self, kind: str) -> bool:
        """Whether `optimizer` or `param` is in host memory."""
        return self.layout.get(f"offload_{kind}", {}).get("device") == "cpu"


@dataclass(frozen=True)
class _Share:
    """What a rank has of a step under a stage, in bytes; arrays are [moment]."""

    weights: int
    optimizer: int
    """fp32 weights, or gradients of them, beside the slots of the optimizer."""
    gradients: Any
    """During the passes."""
    update: int
    """In place of the gradients, during the update."""
    buffers: Any
    """During the passes."""
    always: int
    """Further buffers, also during the update."""
    copied: int
    """Of each element of a bucket that is averaged."""
    host: int
    gathered: int
    """Elements of the weights that are gathered in a step."""


def zero(trace: StepTrace, ranks: int, accumulation: int, zero_optimization: Facts) -> Placed:
    """DeepSpeed with a `zero_optimization` block of its config; formulas of version 0.19.8.

    Stages 1 and 2 have all weights on every rank; each updates an equal part of the flat tensor of
    each group. A gradient goes into a bucket when it is complete, and from there to the rank of its
    part. In fp32 the parts of a micro-batch are new tensors, to which those before are added; in 16
    bits there is one fp32 tensor for all.

    Under stage 3 each rank has an equal part of each weight, of its gradient, and of what updates
    it. Small weights stay gathered. Others are gathered ahead of the layer that needs them, and
    stay if a layer needs them again soon: by default from the forward to the backward pass.
    """
    # The last bucket is averaged when the backward pass is complete: a moment of its own.
    end = np.flatnonzero(trace.moments.phase == Phase.UPDATE)[:1]
    rows = np.insert(np.arange(len(trace.moments.phase)), end, end)
    moments = Moments(*(array[rows] for array in trace.moments))
    moments.phase[end] = Phase.BACKWARD
    moments.computed[end] = np.iinfo(moments.computed.dtype).max

    layout = {**DEFAULTS, **zero_optimization}
    stage = layout["stage"]
    step = _Step(trace, ranks, accumulation, layout, moments)
    share = _sharded_weights(step) if stage == 3 else _full_weights(step)

    optimizer = share.optimizer + _part(trace.slot_bytes, ranks)
    host = share.host
    if step.offloads("optimizer"):
        host += optimizer
        optimizer = 0
    bucket = min(layout["reduce_bucket_size"], trace.trainable)
    buffers = share.buffers + share.always + share.copied * bucket * step.is_averaged
    held = moments.held
    in_update = moments.phase == Phase.UPDATE
    held[:, Kind.WEIGHTS] = trace.buffer_bytes + share.weights
    held[:, Kind.OPTIMIZER] = optimizer
    held[:, Kind.GRADIENTS] = np.where(in_update, share.update, share.gradients)
    held[:, Kind.COMMUNICATION] = np.where(in_update, share.always, buffers)
    held[in_update, Kind.TEMPORARIES] //= ranks

    # Stages 1 and 2 give every rank the means of all gradients, and keep those of its part.
    goes_to_one = layout["reduce_scatter"] and not layout["use_multi_rank_bucket_allreduce"]
    rounds = 1 if stage == 3 or goes_to_one else 2
    if stage > 1:
        rounds *= accumulation
    reduced = rounds * FP32_BYTES * trace.trainable
    sent = (ranks - 1) / ranks * (reduced + step.size * share.gathered)
    return Placed(fullest(held), host, sent)


def _full_weights(step: _Step) -> _Share:
    """Of a rank under stages 1 and 2."""
    trace = step.trace
    layout = step.layout
    size = step.size
    is_fp32 = size == FP32_BYTES
    offloads = step.offloads("optimizer")
    several = step.accumulation > 1
    parts = [2 * _part(sum(group), 2 * step.ranks) for group in trace.groups]  # they are aligned
    numel = sum(parts)
    part = FP32_BYTES * numel

    in_device = 0 if offloads and is_fp32 else part
    is_later = _passes(step.moments.phase) > 1
    if layout["stage"] == 1 and several:  # gradients stay whole until the last micro-batch
        whole = step.moments.held[:, Kind.GRADIENTS] * FP32_BYTES // size
        gradients = in_device * step.is_averaged + whole
    elif is_fp32:
        gradients = in_device * is_later + in_device * step.is_averaged
    else:
        gradients = in_device * (is_later | step.is_averaged)

    in_bucket = FP32_BYTES if layout["stage"] == 1 else size
    buckets = 2 if layout.get("overlap_comm") else 1
    if not layout["contiguous_gradients"]:
        buckets = 0
    # The bucket is copied, and in 16 bits that copy is then copied to fp32.
    copied = in_bucket
    if in_bucket < FP32_BYTES:
        copied += FP32_BYTES

    # Gradients are measured one by one in fp64, then copied group by group.
    work = _FP64_BYTES * min(step.largest, numel)
    if is_fp32:
        work = max(work, FP32_BYTES * max(parts))
    always = 0
    host = 0
    if offloads:  # gradients, those of other micro-batches, and weights on their way back
        work = 0
        always = size * step.largest
        host = part + size * (numel + step.largest)
        if is_fp32 and several:
            host += part
    return _Share(
        weights=trace.weight_bytes,
        optimizer=part,
        gradients=gradients,
        update=in_device + work,
        buffers=in_bucket * buckets * layout["reduce_bucket_size"] * (step.moments.computed > 0),
        always=always,
        copied=copied,
        host=host,
        gathered=trace.trainable,
    )


def _sharded_weights(step: _Step) -> _Share:
    """Of a rank under stage 3."""
    trace = step.trace
    layout = step.layout
    ranks = step.ranks
    size = step.size
    trained = sum(_part(numel, ranks) for numel in chain(*trace.groups))
    part = FP32_BYTES * trained
    shards = size * (trained + _part(trace.parameters - trace.trainable, ranks))

    small = layout["stage3_param_persistence_threshold"]
    persistent = sum(numel for numel in trace.sizes if numel <= small)
    others = trace.parameters - persistent
    soon = layout["stage3_max_reuse_distance"] // 2
    fetched = layout["stage3_prefetch_bucket_size"]
    most = fetched + max(trace.sizes)  # with the layer that waits for them
    ahead = min(others, soon + fetched + most)
    arriving = min(ahead, most) * (step.moments.phase == Phase.FORWARD)

    buffers = size * (ahead + arriving) * (ranks > 1)
    always = 0
    if layout["contiguous_gradients"]:
        always = FP32_BYTES * layout["reduce_bucket_size"]

    group = min(part, FP32_BYTES * layout["sub_group_size"])
    update = max(group, _FP64_BYTES * _part(step.largest, ranks))
    host = 0
    if step.offloads("optimizer"):
        update = 0
        host = part
        if step.offloads("param"):
            host += shards
            shards = 0
    return _Share(
        weights=size * persistent + shards,
        optimizer=2 * part,
        gradients=0,
        update=update,
        buffers=buffers,
        always=always,
        copied=FP32_BYTES,
        host=host,
        gathered=persistent + step.accumulation * (2 * others - min(others, soon + fetched)),
    )


def _part(numel: int, ranks: int) -> int:
    """Of a tensor that all ranks share, rounded up."""
    return -(-numel // ranks)


def _passes(phase: np.ndarray) -> np.ndarray:
    """The number of forward passes so far."""
    is_forward = phase == Phase.FORWARD
    return (np.diff(is_forward, prepend=False) & is_forward).cumsum()
