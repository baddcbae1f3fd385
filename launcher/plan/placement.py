"""The peak of a rank and its traffic under each engine, from the trace of one step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from engines.catalog import Placement
from engines.ddp import BUCKET_BYTES
from launcher.plan.step_trace import StepTrace
from launcher.plan.storages import Kind, Moment, Phase

FP32_BYTES = 4


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


def as_traced(
    trace: StepTrace, ranks: Ranks, *, offloads: bool = False, on_cpu: bool = False
) -> Placed:
    """The engine was traced itself: local, or fsdp with its collectives.

    `offloads`: shards of weights, gradients and optimizer are in host memory. `on_cpu`: that is the
    memory of the device, too, and the peak is that of both together. Otherwise torch pins the
    memory of each gradient, a power of two.
    """
    if not offloads:
        return Placed(trace.peak.held, 0, trace.sent)
    moments = [trace.peak] if on_cpu else trace.moments
    moved = (Kind.WEIGHTS, Kind.GRADIENTS, Kind.OPTIMIZER)
    device = fullest(_without(moment, moved) for moment in moments)
    host = max(sum(moment.held[kind] for kind in moved) for moment in moments)
    if not on_cpu:
        shards = (FP32_BYTES * -(-numel // ranks.size) for numel in chain(*trace.groups))
        host += sum((1 << (size - 1).bit_length()) - size for size in shards)
    return Placed(device, host, trace.sent)


def replicated(trace: StepTrace, ranks: Ranks, placement: Placement) -> Placed:
    """An engine with full weights and gradients, and maybe shards of the optimizer state.

    Gradients stay in buckets from the first step on; a new one is beside its bucket. So are those
    of all micro-batches but the last one of a step, which moves them to the buckets one by one.
    What the trace sent is of an optimizer whose ranks divide its work.
    """
    gradients = FP32_BYTES * trace.trainable
    sent = 2 * ranks.away * gradients
    shards_optimizer = placement.optimizer != "replicated"
    largest = max(chain(*trace.groups), default=0)
    bucket = min(gradients, max(BUCKET_BYTES, FP32_BYTES * largest))
    share = _largest_share(trace.groups, ranks.size) if shards_optimizer else 1.0

    def placed(moment: Moment, passes: int) -> dict[Kind, int]:
        held = dict(moment.held)
        beside = 0
        if ranks.accumulation > 1 and moment.phase is not Phase.UPDATE:
            moved = FP32_BYTES * moment.computed if passes == ranks.accumulation else 0
            beside = max(held[Kind.GRADIENTS] - moved, 0)
        held[Kind.GRADIENTS] = gradients + beside
        held[Kind.OPTIMIZER] = round(share * held[Kind.OPTIMIZER])
        if moment.phase is Phase.UPDATE:
            # The first one averages bucket by bucket the gradients that it has.
            held[Kind.COMMUNICATION] += bucket
        return held

    if ranks.size == 1:
        return Placed(trace.peak.held, 0, 0.0)
    sent += ranks.away * gradients if shards_optimizer else trace.sent
    moments = (placed(moment, passes) for moment, passes in with_passes(trace.moments))
    return Placed(fullest(moments), 0, sent)


def _largest_share(groups: Sequence[Sequence[int]], ranks: int) -> float:
    """The share of the rank with the most: FairScale gives the next parameter to the emptiest."""
    held = [0] * ranks
    for numel in chain(*groups):
        held[held.index(min(held))] += numel
    return max(held) / max(sum(held), 1)


def _without(moment: Moment, kinds: tuple[Kind, ...]) -> dict[Kind, int]:
    return {kind: 0 if kind in kinds else n for kind, n in moment.held.items()}


def with_passes(moments: Iterable[Moment]) -> Iterator[tuple[Moment, int]]:
    """Each moment with the number of forward passes so far."""
    before, passes = Phase.UPDATE, 0
    for moment in moments:
        passes += moment.phase is Phase.FORWARD and before is not Phase.FORWARD
        before = moment.phase
        yield moment, passes


def fullest(moments: Iterator[Mapping[Kind, int]]) -> Mapping[Kind, int]:
    """The moment with the most bytes."""
    return max(moments, key=lambda held: sum(held.values()))
