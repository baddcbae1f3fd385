"""Times by data sheet: the roofline and its basis; and the shares of the peak."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from benchmarks.gpu import GOALS
from gearshift.engines.catalog import ENGINES
from gearshift.launcher.plan.placement import Placed
from gearshift.launcher.plan.plan import SHARES, Plan, by_data_sheet, plan_run
from gearshift.launcher.plan.storages import Kind
from gearshift.launcher.plan.target import Described, PlanTarget
from gearshift.training.throughput import gpus
from gearshift.training.train_plan import TrainPlan
from tests.launcher.given import ONE_GPU, SERVER, resolved

H200 = gpus()["H200"]
PLAN = TrainPlan(100, 20, 8, 8, 1, 1, "samples", eval_every=20)
ONE, EIGHT, NODES = (PlanTarget(n, m, "cuda", None, None) for n, m in ((1, 1), (1, 8), (2, 8)))


def times(flops=1e15, target=ONE, gpu=H200, plan=PLAN, moved=0, sent=0):
    trace = SimpleNamespace(flops=flops, offloaded=0)
    planned = SimpleNamespace(
        engine="local",
        target=target,
        batching=SimpleNamespace(accumulation=1),
        trace=trace,
        parameters=10**8,
        moved_bytes=moved,
        placed=SimpleNamespace(sent_bytes=sent),
    )
    return by_data_sheet(planned, gpu, "bf16", plan)


def test_the_longest_of_computation_memory_and_links_limits():
    share = SHARES["124M", "replicated"]
    computed = times()
    assert computed.step == pytest.approx(1e15 / 989.5e12 / share)
    assert "58% of 989.5 TFLOP/s in bf16" in computed.basis and computed.is_least
    moved = times(1e9, moved=4.8e12)
    assert moved.step == pytest.approx(1) and "memory at 4800 GB/s" in moved.basis
    sent = times(1e9, EIGHT, sent=450e9)
    assert sent.step == pytest.approx(1) and "links at 450 GB/s" in sent.basis
    between = times(1e9, NODES, sent=450e9)
    assert between.step < 1e-3 and "links" not in between.basis


def test_an_epoch_and_a_run_are_their_steps():
    found = times(plan=replace(PLAN, stop_after=50))
    assert found.epoch == pytest.approx(20 * found.step)
    assert found.run == pytest.approx(50 * found.step)


def test_the_shares_are_the_anchors_of_the_benchmark():
    for (size, engine), goal in GOALS.items():
        placement = ENGINES[engine].placement
        share = SHARES[size, "host" if placement.offloads else placement.weights]
        assert goal == pytest.approx(share * (1.3 if placement.offloads else 1))


def test_bytes_moved_are_those_of_passes_and_update():
    held = {Kind.WEIGHTS: 100, Kind.ACTIVATIONS: 1000, Kind.OPTIMIZER: 200}
    trace = SimpleNamespace(trainable=25, offloaded=0)
    for accumulation, expected in ((1, 2 * 100 + 2 * 1000 + 4 * 25 + 2 * 300), (3, 3 * 2200 + 700)):
        batching = SimpleNamespace(accumulation=accumulation)
        plan = Plan("local", ONE, batching, trace, Placed(held, 0, 0.0), 0, 0, 0, 0)
        assert plan.moved_bytes == expected


def test_a_plan_has_times_with_a_named_gpu_that_has_the_precision_only():
    run = resolved("compile=off", machine=ONE_GPU, engine="local")
    assert plan_run(run, Described(SERVER)).seconds.basis.startswith("none: --gpu")
    found = plan_run(run, Described(ONE_GPU, gpu=H200))
    assert found.seconds.run == found.steps * found.seconds.step > 0
    assert found.as_json()["seconds"].keys() == {"step", "epoch", "run", "basis", "is_least"}
    found = times(gpu=gpus()["T4"])
    assert found.step is None and found.basis == "none: the data sheet of T4 has no bf16"
