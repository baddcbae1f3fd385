"""What a rank holds under each engine: closed forms from the sizes of parameters and ranks."""

from dataclasses import replace
from math import prod

import numpy as np
import pytest

from gearshift.engines.catalog import ENGINES
from gearshift.engines.zero.library import load
from gearshift.launcher.plan.placement import DEFAULTS, as_traced, replicated, zero
from gearshift.launcher.plan.step_trace import StepTrace
from gearshift.launcher.plan.storages import Kind, Moments, Phase
from tests.engines.parity import Case, prepared

DDP, OSS = ENGINES["ddp"].placement, ENGINES["oss"].placement
HELD = {**dict.fromkeys(Kind, 0), Kind.WEIGHTS: 480, Kind.OPTIMIZER: 960, Kind.TEMPORARIES: 7}


def moments(*given):
    """Of phase, what is held, and the elements of complete gradients."""
    phase, held, computed = zip(*given, strict=True)
    rows = [[each.get(kind, 0) for kind in Kind] for each in held]
    return Moments(np.array(phase), np.array(rows), np.array(computed))


TRACE = StepTrace(
    moments((Phase.FORWARD, HELD, 0)), [50, 30, 20, 20], [[50, 30], [20, 20]], 480, 240, 0.0, 0.0
)


def test_ddp_keeps_gradients_in_buckets_and_oss_gives_parameters_to_the_rank_with_the_least():
    found = replicated(TRACE, 4, 1, DDP)
    assert found.device == {**HELD, Kind.GRADIENTS: 480}
    assert found.sent_bytes == 2 * 3 / 4 * 480
    shared = replace(TRACE, sent=120.0)  # by an optimizer
    assert replicated(shared, 4, 1, DDP).sent_bytes == 3 / 4 * 2 * 480 + 120
    assert replicated(TRACE, 1, 1, DDP).device == HELD
    found = replicated(TRACE, 2, 1, OSS)
    assert found.device[Kind.OPTIMIZER] == 960 * 70 / 120  # 50 + 20; the other has 30 + 20
    many = replicated(TRACE, 64, 1, OSS)
    assert many.device[Kind.OPTIMIZER] == 960 * 50 / 120


def test_gradients_of_earlier_micro_batches_are_beside_their_buckets():
    def moment(phase, gradients, temporaries, computed=0):
        held = {**HELD, Kind.GRADIENTS: gradients, Kind.TEMPORARIES: temporaries}
        return phase, held, computed

    first = [moment(Phase.FORWARD, 0, 7), moment(Phase.BACKWARD, 480, 8, 120)]
    second = [moment(Phase.FORWARD, 480, 9), moment(Phase.BACKWARD, 480, 1000, 60)]
    update = moment(Phase.UPDATE, 480, 5000)

    def gradients(accumulation, *later):
        trace = replace(TRACE, moments=moments(*first, *later))
        return replicated(trace, 2, accumulation, DDP).device[Kind.GRADIENTS]

    assert gradients(1) == 480
    assert gradients(4) == 480 + 480
    assert gradients(4, *second) == 480 + 480
    assert gradients(2, *second) == 480 + 480 - 4 * 60  # in the last one they move
    assert gradients(4, *second, update) == 480


def test_the_first_update_averages_one_bucket_beside_the_gradients():
    update = replace(TRACE, moments=moments((Phase.UPDATE, HELD, 0)))
    device = replicated(update, 2, 1, DDP).device
    assert device[Kind.COMMUNICATION] == device[Kind.GRADIENTS] == 480  # less than a bucket


def test_offload_on_a_cpu_has_one_peak_for_both():
    early = (Phase.FORWARD, {**HELD, Kind.ACTIVATIONS: 900}, 0)
    late = (Phase.UPDATE, {**HELD, Kind.GRADIENTS: 800}, 0)
    trace = replace(TRACE, moments=moments(early, late))
    apart = as_traced(trace, 2, offloads=True, on_cpu=False)
    # torch pins a power of two for each gradient: of 25, 15, 10 and 10 elements here.
    rounded = (128 - 100) + (64 - 60) + 2 * (64 - 40)
    assert (apart.device_bytes, apart.offloaded_bytes) == (907, 480 + 960 + 800 + rounded)
    together = as_traced(trace, 2, offloads=True, on_cpu=True)
    assert (together.device_bytes, together.offloaded_bytes) == (907, 480 + 960)


GROUPS = [[6000, 3000], [1000]]
NUMEL, SLOTS = 10_000, 20_000
BUCKET = 500


def trace(*given, weight_size=4, frozen=()):
    """A step of local; a moment is its phase, the elements of complete gradients, and a peak."""
    sizes = [*(numel for group in GROUPS for numel in group), *frozen]
    size = weight_size * sum(sizes)
    held = [
        (phase, {Kind.GRADIENTS: weight_size * computed, Kind.ACTIVATIONS: activations}, computed)
        for phase, computed, activations in given
    ]
    return StepTrace(moments(*held), sizes, GROUPS, size, 4 * SLOTS, 0.0, 0.0)


def placed(stage, given, accumulation=1, *, weight_size=4, frozen=(), **layout):
    layout = {"stage": stage, "overlap_comm": True, "reduce_bucket_size": BUCKET, **layout}
    return zero(trace(*given, weight_size=weight_size, frozen=frozen), 2, accumulation, layout)


FORWARD = (Phase.FORWARD, 0, 10**6)
BEFORE = (Phase.BACKWARD, 0, 10**6)
FIRST = (Phase.BACKWARD, BUCKET, 10**6)
"""The first gradients fill a bucket."""
LATER = (Phase.BACKWARD, BUCKET + 1, 10**6)
UPDATE = (Phase.UPDATE, NUMEL, 0)
OFFLOAD = {"offload_optimizer": {"device": "cpu"}}


@pytest.mark.parametrize("stage", [1, 2])
def test_stages_1_and_2_hold_all_weights_and_a_part_of_what_updates_them(stage):
    device = placed(stage, [FORWARD]).device
    assert device[Kind.WEIGHTS] == 4 * NUMEL
    assert device[Kind.OPTIMIZER] == 4 * (NUMEL + SLOTS) / 2
    assert device[Kind.GRADIENTS] == device[Kind.COMMUNICATION] == 0


def test_two_buckets_live_from_the_first_gradient_and_parts_from_the_first_full_bucket():
    assert placed(2, [BEFORE]).device[Kind.COMMUNICATION] == 0
    first = placed(2, [FIRST]).device
    assert (first[Kind.COMMUNICATION], first[Kind.GRADIENTS]) == (4 * 2 * BUCKET, 0)
    later = placed(2, [LATER]).device
    assert later[Kind.COMMUNICATION] == 4 * 3 * BUCKET  # and a copy of what is averaged
    assert later[Kind.GRADIENTS] == 4 * NUMEL / 2
    assert placed(2, [FIRST], overlap_comm=False).device[Kind.COMMUNICATION] == 4 * BUCKET
    assert placed(2, [FIRST], weight_size=2).device[Kind.COMMUNICATION] == 2 * 2 * BUCKET
    assert placed(1, [FIRST], weight_size=2).device[Kind.COMMUNICATION] == 4 * 2 * BUCKET


def test_the_update_measures_gradients_in_fp64_and_copies_a_group():
    part = 4 * NUMEL // 2
    assert placed(2, [UPDATE]).device[Kind.GRADIENTS] in (part, part + 8 * 5000)
    update = placed(2, [(Phase.UPDATE, 0, 10**6)], reduce_bucket_size=1).device
    assert update[Kind.GRADIENTS] == part + 8 * 5000  # 6000 in one tensor, 5000 of them here


@pytest.mark.parametrize(("stage", "size"), [(1, 4), (2, 4), (2, 2)])
def test_gradients_between_micro_batches(stage, size):
    early = [FORWARD, LATER, (Phase.FORWARD, 0, 2 * 10**6)]
    device = placed(stage, early, 2, weight_size=size).device
    assert device[Kind.GRADIENTS] == (0 if stage == 1 else 4 * NUMEL / 2)
    later = [*early, (Phase.BACKWARD, BUCKET + 1, 3 * 10**6)]
    device = placed(stage, later, 2, weight_size=size).device
    whole = 4 * (BUCKET + 1) + 4 * NUMEL / 2  # averaged in the last pass only
    assert device[Kind.GRADIENTS] == (
        whole if stage == 1 else 4 * NUMEL / 2 * (2 if size == 4 else 1)
    )


def test_offload_of_stage_2_leaves_weights_and_buffers_on_the_device():
    found = placed(2, [LATER], **OFFLOAD)
    assert found.device[Kind.OPTIMIZER] == found.device[Kind.GRADIENTS] == 0
    assert found.device[Kind.COMMUNICATION] == 4 * (3 * BUCKET + 6000)
    # fp32 weights, two slots, gradients, weights on their way back; and the largest gradient
    assert found.offloaded_bytes == 4 * (5 * NUMEL / 2 + 6000)
    accumulated = placed(2, [LATER], 2, **OFFLOAD)
    assert accumulated.offloaded_bytes == found.offloaded_bytes + 4 * NUMEL / 2


def pinned_by_deepspeed(world, case):
    """Bytes that DeepSpeed pins at the start, and the elements of the parameters by group."""
    load("cpu")
    from deepspeed.accelerator import get_accelerator

    sizes = []
    get_accelerator().pin_memory = lambda tensor: sizes.append(tensor.nbytes) or tensor
    with prepared(world, case) as (engine, _):
        state = engine.state()
    return sum(sizes), [[prod(state.shapes[n]) for n in g["names"]] for g in state.groups]


@pytest.mark.slow
def test_the_offloaded_bytes_are_what_deepspeed_pins_and_the_slots(worlds):
    pytest.importorskip("deepspeed")
    for pinned, groups in worlds[2].run(pinned_by_deepspeed, Case("zero2-offload")):
        trained = sum(map(sum, groups))
        held = moments((Phase.FORWARD, {}, 0))
        step = StepTrace(held, [trained], groups, 4 * trained, 8 * trained, 0.0, 0.0)
        planned = zero(step, 2, 1, {"stage": 2, "overlap_comm": True, **OFFLOAD})
        assert planned.offloaded_bytes == pinned + 4 * trained


def test_stage_3_shards_weights_and_keeps_small_ones_gathered():
    assert placed(3, [FORWARD]).device[Kind.WEIGHTS] == 4 * (NUMEL / 2 + NUMEL)
    settings = {"stage3_param_persistence_threshold": 1000}
    device = placed(3, [FORWARD], **settings).device
    assert device[Kind.WEIGHTS] == 4 * (NUMEL / 2 + 1000)
    # The others, and in the forward pass what they arrive in.
    assert device[Kind.COMMUNICATION] == 4 * (BUCKET + 2 * 9000)
    assert placed(3, [BEFORE], **settings).device[Kind.COMMUNICATION] == 4 * (BUCKET + 9000)
    ahead = {"stage3_max_reuse_distance": 100, "stage3_prefetch_bucket_size": 200, **settings}
    device = placed(3, [FORWARD], **ahead).device
    gathered, arriving = 50 + 2 * 200 + 6000, 200 + 6000
    assert device[Kind.COMMUNICATION] == 4 * (BUCKET + gathered + arriving)
    frozen = placed(3, [BEFORE], frozen=[7000], **ahead).device
    assert frozen[Kind.COMMUNICATION] == 4 * (BUCKET + gathered + 1000)


def test_stage_3_offloads_weights_only_if_set():
    small = {"stage3_param_persistence_threshold": 0}
    kept = placed(3, [FORWARD], **OFFLOAD, **small)
    moved = placed(3, [FORWARD], **OFFLOAD, **small, offload_param={"device": "cpu"})
    assert kept.device[Kind.WEIGHTS] == 4 * NUMEL / 2
    assert moved.device[Kind.WEIGHTS] == 0
    assert kept.offloaded_bytes == 4 * 5 * NUMEL / 2
    assert moved.offloaded_bytes == kept.offloaded_bytes + 4 * NUMEL / 2


def test_defaults_are_those_of_deepspeed():
    config = pytest.importorskip("deepspeed.runtime.zero.config").DeepSpeedZeroConfig
    fields = {field.alias or name: field.default for name, field in config.model_fields.items()}
    assert {key: fields[key] for key in DEFAULTS} == DEFAULTS
