"""On GPUs, too, every engine has the gradients of plain PyTorch, and skips an overflow."""

import pytest

from tests.devices import pool
from tests.engines.parity import Case, distance, prepared, train
from tests.engines.test_parity import able, all_engines

pytestmark = pytest.mark.gpu

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


@both_sizes
@all_engines
def test_losses_norms_and_moments_are_those_of_local_on_a_cpu(request, worlds, engine, size):
    outcomes = pool(request, "cuda", size).run(train, Case(engine, steps=5))
    is_near(outcomes, worlds[1].run(train, Case("local", steps=5)))
    assert outcomes[0].without_gradient == []


@both_sizes
@all_engines
def test_bf16_gradients_are_near_those_of_local(request, engine, size):
    case = {"steps": 2, "lr": 0.0, "precision": "bf16", "clip_norm": None}
    plain = pool(request, "cuda", 1).run(train, Case("local", **case))
    apart = distance(pool(request, "cuda", size).run(train, Case(engine, **case)), plain)
    assert apart["weight"] == 0.0 and apart["exp_avg"] < HALF, apart


@both_sizes
@all_engines
def test_fp16_skips_on_all_ranks_an_overflow_on_one(request, engine, size):
    case = Case(engine, steps=4, lr=0.0, precision="fp16", overflow_at=2)
    for outcome in pool(request, "cuda", size).run(train, case):
        assert outcome.skipped == [False, True, False, False]
        assert outcome.loss_scales == [2.0**16, 2.0**16, 2.0**15, 2.0**15]
        assert set(outcome.steps.values()) == {3.0}


@both_sizes
@able("local", "ddp", "fsdp")
def test_compilation_changes_numbers_by_rounding_only(request, engine, size):
    plain = pool(request, "cuda", size).run(train, Case(engine, steps=3))
    is_near(pool(request, "cuda", size).run(train, Case(engine, steps=3, compile=True)), plain)


def slot_devices(world, case):
    """The kinds of devices that hold the optimizer's state."""
    with prepared(world, case) as (engine, _):
        return {p.data.device.type for p in engine.state().pieces if p.kind == "exp_avg"}


@all_engines
def test_engines_that_offload_keep_the_state_of_the_optimizer_in_host_memory(request, engine):
    (found,) = pool(request, "cuda", 1).run(slot_devices, Case(engine))
    assert found == {"cpu" if engine.endswith("offload") else "cuda"}
