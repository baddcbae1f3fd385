"""What a rank holds under ddp and oss, from the sizes of parameters."""

from dataclasses import replace

from engines.catalog import ENGINES
from launcher.plan.placement import Ranks, as_traced, replicated
from launcher.plan.step_trace import StepTrace
from launcher.plan.storages import Kind, Moment, Phase

DDP, OSS = ENGINES["ddp"].placement, ENGINES["oss"].placement
GROUPS = [[50, 30], [20, 20]]
HELD = {**dict.fromkeys(Kind, 0), Kind.WEIGHTS: 480, Kind.OPTIMIZER: 960, Kind.TEMPORARIES: 7}
TRACE = StepTrace([Moment(Phase.FORWARD, HELD)], [50, 30, 20, 20], GROUPS, 480, 240, 0.0, 0.0)


def test_ddp_keeps_gradients_in_buckets_and_oss_gives_parameters_to_the_rank_with_the_least():
    found = replicated(TRACE, Ranks(4, 1), DDP)
    assert found.device == {**HELD, Kind.GRADIENTS: 480}
    assert found.sent_bytes == 2 * 3 / 4 * 480
    shared = replace(TRACE, sent=120.0)  # by an optimizer
    assert replicated(shared, Ranks(4, 1), DDP).sent_bytes == 3 / 4 * 2 * 480 + 120
    assert replicated(TRACE, Ranks(1, 1), DDP).device == HELD
    found = replicated(TRACE, Ranks(2, 1), OSS)
    assert found.device[Kind.OPTIMIZER] == 960 * 70 / 120  # 50 + 20; the other has 30 + 20
    many = replicated(TRACE, Ranks(64, 1), OSS)
    assert many.device[Kind.OPTIMIZER] == 960 * 50 / 120


def test_gradients_of_earlier_micro_batches_are_beside_their_buckets():
    def moment(phase, gradients, temporaries, computed=0):
        held = {**HELD, Kind.GRADIENTS: gradients, Kind.TEMPORARIES: temporaries}
        return Moment(phase, held, computed)

    first = [moment(Phase.FORWARD, 0, 7), moment(Phase.BACKWARD, 480, 8, 120)]
    second = [moment(Phase.FORWARD, 480, 9), moment(Phase.BACKWARD, 480, 1000, 60)]
    update = moment(Phase.UPDATE, 480, 5000)

    def gradients(accumulation, *later):
        trace = replace(TRACE, moments=[*first, *later])
        return replicated(trace, Ranks(2, accumulation), DDP).device[Kind.GRADIENTS]

    assert gradients(1) == 480
    assert gradients(4) == 480 + 480
    assert gradients(4, *second) == 480 + 480
    assert gradients(2, *second) == 480 + 480 - 4 * 60  # in the last one they move
    assert gradients(4, *second, update) == 480


def test_the_first_update_averages_one_bucket_beside_the_gradients():
    update = replace(TRACE, moments=[Moment(Phase.UPDATE, HELD)])
    device = replicated(update, Ranks(2, 1), DDP).device
    assert device[Kind.COMMUNICATION] == device[Kind.GRADIENTS] == 480  # less than a bucket


def test_offload_on_a_cpu_has_one_peak_for_both():
    early = Moment(Phase.FORWARD, {**HELD, Kind.ACTIVATIONS: 900})
    late = Moment(Phase.UPDATE, {**HELD, Kind.GRADIENTS: 800})
    trace = replace(TRACE, moments=[early, late])
    apart = as_traced(trace, Ranks(2, 1), offloads=True)
    # torch pins a power of two for each gradient: of 25, 15, 10 and 10 elements here.
    rounded = (128 - 100) + (64 - 60) + 2 * (64 - 40)
    assert (apart.device_bytes, apart.offloaded_bytes) == (907, 480 + 960 + 800 + rounded)
    together = as_traced(trace, Ranks(2, 1), offloads=True, on_cpu=True)
    assert (together.device_bytes, together.offloaded_bytes) == (907, 480 + 960)
