"""On GPUs, too, every engine has the gradients of plain PyTorch; options change numbers by rounding only."""

from dataclasses import replace

import pytest
import torch

from gearshift.engines.precision import check_precision
from tests.devices import each_device, pool
from tests.engines.parity import Case, distance, prepared, train
from tests.engines.test_parity import able, able_mark, all_engines

gpu = pytest.mark.gpu

both_sizes = pytest.mark.parametrize("size", [1, 2])
# Kernels add in another order than those of a CPU, and some of them in any order.
TOLERANCE = 1e-4
WEIGHTS = 1e-3
"""Adam's first steps amplify rounding where a gradient is near zero."""
HALF = 2e-2
"""Gradients in 16 bits, where one engine rounds weights and another one activations."""


def is_near(outcomes, reference):
    apart = distance(outcomes, reference)
    assert apart.pop("weight") < WEIGHTS and max(apart.values()) < TOLERANCE, apart


@gpu
@both_sizes
@all_engines
def test_losses_norms_and_moments_are_those_of_local_on_a_cpu(request, worlds, engine, size):
    outcomes = pool(request, "cuda", size).run(train, Case(engine, steps=5))
    is_near(outcomes, worlds[1].run(train, Case("local", steps=5)))
    assert outcomes[0].without_gradient == []


@gpu
@both_sizes
@all_engines
def test_bf16_gradients_are_near_those_of_local(request, engine, size):
    case = {"steps": 2, "lr": 0.0, "precision": "bf16", "clip_norm": None}
    plain = pool(request, "cuda", 1).run(train, Case("local", **case))
    apart = distance(pool(request, "cuda", size).run(train, Case(engine, **case)), plain)
    assert apart["weight"] == 0.0 and apart["exp_avg"] < HALF, apart


@gpu
@both_sizes
@all_engines
def test_fp16_skips_on_all_ranks_an_overflow_on_one(request, engine, size):
    case = Case(engine, steps=4, lr=0.0, precision="fp16", overflow_at=2)
    for outcome in pool(request, "cuda", size).run(train, case):
        assert outcome.skipped == [False, True, False, False]
        assert outcome.loss_scales == [2.0**16, 2.0**16, 2.0**15, 2.0**15]
        assert set(outcome.steps.values()) == {3.0}


@gpu
@both_sizes
@able("local", "ddp", "fsdp")
def test_compilation_changes_numbers_by_rounding_only(request, engine, size):
    plain = pool(request, "cuda", size).run(train, Case(engine, steps=3))
    is_near(pool(request, "cuda", size).run(train, Case(engine, steps=3, compile=True)), plain)


def slot_devices(world, case):
    """The kinds of devices that hold the optimizer's state."""
    with prepared(world, case) as (engine, _):
        return {p.data.device.type for p in engine.state().pieces if p.kind == "exp_avg"}


@gpu
@all_engines
def test_engines_that_offload_keep_the_state_of_the_optimizer_in_host_memory(request, engine):
    (found,) = pool(request, "cuda", 1).run(slot_devices, Case(engine))
    assert found == {"cpu" if engine.endswith("offload") else "cuda"}


@pytest.mark.slow
@each_device
@pytest.mark.parametrize(
    ("engine", "keep_products"), [pytest.param("fsdp", True, marks=able_mark("fsdp"))]
)
def test_compiled_blocks_may_recompute_their_activations(request, device, engine, keep_products):
    case = Case(engine, steps=3, activation_checkpointing=1, keep_products=keep_products)
    ranks = pool(request, device, 1)
    is_near(ranks.run(train, replace(case, compile=True)), ranks.run(train, Case(engine, steps=3)))


@pytest.mark.slow
@each_device
@able("local", "fsdp")
def test_training_in_8_bits_is_near_that_in_bf16(request, device, engine):
    if device == "cuda" and torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("needs a GPU of compute capability 8.9")
    check_precision("fp8", torch.device(device))
    ranks = pool(request, device, 1)
    bf16, fp8 = (ranks.run(train, Case(engine, precision=p)) for p in ("bf16", "fp8"))
    assert 1e-5 < distance(fp8, bf16)["loss"] < 0.02
    assert fp8[0].losses[-1] < fp8[0].losses[0]


@gpu
@both_sizes
@able("ddp", "oss", "fsdp")
def test_muon_has_the_state_of_one_process_on_a_cpu(request, worlds, engine, size):
    found = pool(request, "cuda", size).run(train, Case(engine, steps=3, muon=True))
    apart = distance(found, worlds[1].run(train, Case("local", steps=3, muon=True)))
    # The step of a matrix is rounded to bf16, at which another order of sums is visible.
    assert apart["loss"] < 1e-3 and apart["momentum_buffer"] < 0.02, apart


@each_device
@able("fsdp")
def test_shards_replicated_on_two_nodes_train_as_shards_over_all_ranks(request, device, engine):
    case, ranks = Case(engine, steps=3), pool(request, device, 2)
    plain, hybrid = (ranks.run(train, replace(case, nodes=nodes)) for nodes in (None, 2))
    assert max(distance(hybrid, plain).values()) < 1e-4
    replicas = {replica for outcome in hybrid for *_, replica in outcome.pieces}
    assert replicas == {(0, 2), (1, 2)}
