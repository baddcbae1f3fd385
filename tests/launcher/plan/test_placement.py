"""What a rank holds under ddp and oss, from the sizes of parameters."""

from __future__ import annotations

from launcher.plan.placement import Ranks, replicated
from launcher.plan.step_trace import StepTrace
from launcher.plan.storages import Kind, Moment, Phase

GROUPS = [[50, 30], [20, 20]]
HELD = {**dict.fromkeys(Kind, 0), Kind.WEIGHTS: 480, Kind.OPTIMIZER: 960, Kind.TEMPORARIES: 7}
TRACE = StepTrace([Moment(Phase.FORWARD, HELD)], 120, GROUPS, 480, 240, 0.0, 1, {})


def test_ddp_keeps_gradients_in_buckets_and_all_else_as_local():
    found = replicated(TRACE, Ranks(4, 1))
    assert found.device == {**HELD, Kind.GRADIENTS: 480}
    assert found.sent_bytes == 2 * 3 / 4 * 480
    assert replicated(TRACE, Ranks(1, 1)).device == HELD


def test_oss_gives_whole_parameters_to_the_rank_with_the_least():
    found = replicated(TRACE, Ranks(2, 1), shards_optimizer=True)
    assert found.device[Kind.OPTIMIZER] == 960 * 70 / 120  # 50 + 20; the other has 30 + 20
    many = replicated(TRACE, Ranks(64, 1), shards_optimizer=True)
    assert many.device[Kind.OPTIMIZER] == 960 * 50 / 120
