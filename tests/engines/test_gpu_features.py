"""On each device, options of engines change numbers by rounding only."""

from dataclasses import replace

import pytest
import torch

from engines.precision import check_precision
from tests.devices import each_device, pool
from tests.engines.parity import Case, distance, train
from tests.engines.test_parity import able, able_mark


@pytest.mark.slow
@each_device
@pytest.mark.parametrize(("engine", "keep_products"), [pytest.param("fsdp", True, marks=able_mark("fsdp"))])
def test_compiled_blocks_may_recompute_their_activations(request, device, engine, keep_products):
    case = Case(engine, steps=3, activation_checkpointing=1, keep_products=keep_products)
    ranks = pool(request, device, 1)
    apart = distance(ranks.run(train, replace(case, compile=True)), ranks.run(train, Case(engine, steps=3)))
    # Kernels add in another order; Adam's first steps amplify that in weights.
    assert apart.pop("weight") < 1e-3 and max(apart.values()) < 1e-4, apart


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


@pytest.mark.gpu
@pytest.mark.parametrize("size", [1, 2])
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
