"""Muon: its step, its work per rank, and its state under the engines that have whole matrices."""

import numpy as np
import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from gearshift.training.optim.muon import Muon, orthogonalized
from tests.engines.parity import Case, distance, joined, one_step, outcome, prepared, train
from tests.engines.test_parity import SLOW, able

STEPS = 3
LAYERS = 12
SHAPES = [(24, 8), (8, 8), (32, 8), (8, 32)]
OPTIONS = {"weight_decay": 0.1, "momentum": 0.9}


@pytest.mark.parametrize("shape", [(8, 24), (24, 8)], ids=str)
def test_the_singular_values_of_a_step_are_near_one(shape):
    draw = torch.Generator().manual_seed(0)
    matrices = torch.randn((2, *shape), generator=draw) * torch.logspace(0, -1, shape[1])
    values = torch.linalg.svdvals(orthogonalized(matrices.bfloat16()).float())
    assert values.min() > 0.6 and values.max() < 1.3
    assert torch.linalg.svdvals(matrices).max() > 3


@pytest.mark.parametrize("shape", [(8, 24), (24, 8)], ids=str)
def test_a_matrix_is_updated_as_by_torch(shape):
    ours, theirs = (
        torch.nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(1)))
        for _ in range(2)
    )
    optimizers = [
        Muon([{"params": [ours], **OPTIONS}], lr=0.02),
        torch.optim.Muon([theirs], lr=0.02, adjust_lr_fn="match_rms_adamw", **OPTIONS),
    ]
    for step in range(STEPS):
        gradient = torch.randn(shape, generator=torch.Generator().manual_seed(step))
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def stepped(world, shapes, are_shards):
    """The matrices of `shapes` after a step, by a rank that has all of them or shards."""
    draw = torch.Generator().manual_seed(0)
    mesh = init_device_mesh("cpu", (world.size,))
    parameters = []
    for shape in shapes:
        tensors = [torch.randn(shape, generator=draw) for _ in range(2)]
        if are_shards:
            tensors = [distribute_tensor(tensor, mesh, [Shard(0)]) for tensor in tensors]
        parameter = torch.nn.Parameter(tensors[0])
        parameter.grad = tensors[1]
        parameters.append(parameter)
    Muon([{"params": parameters, **OPTIONS}], lr=0.02).step()
    return [(p.full_tensor() if are_shards else p).detach().numpy() for p in parameters]


@able("fsdp")
def test_shards_of_uneven_rows_are_joined_and_cut_again(worlds, engine):
    shapes = [(7, 5), (1, 6), (7, 5), (1, 6), (3, 9), (7, 5)]
    whole = worlds[1].run(stepped, shapes, False)[0]
    for are_shards in (False, True):
        for found in worlds[2].run(stepped, shapes, are_shards):
            for mine, theirs in zip(found, whole, strict=True):
                # Steps of 0.02 * 0.2 * 3, rounded to bf16.
                np.testing.assert_allclose(mine, theirs, atol=1e-4)


@pytest.fixture(scope="module")
def reference(worlds):
    return worlds[1].run(train, Case("local", steps=2 * STEPS, muon=True))


@able("ddp", "oss", "fsdp", slow=("ddp", "oss"))
def test_two_ranks_have_the_state_of_one(worlds, reference, engine):
    found = worlds[2].run(train, Case(engine, steps=2 * STEPS, muon=True))
    apart = distance(found, reference)
    assert apart.keys() == {"loss", "norm", "weight", "exp_avg", "exp_avg_sq", "momentum_buffer"}
    # The step of a matrix is rounded to bf16, at which another order of sums is visible.
    assert apart["loss"] < 1e-3 and apart["momentum_buffer"] < 0.02, apart
    kinds = {name: kind for kind, name in joined(found) if kind != "weight"}
    assert kinds["blocks.0.qkv.weight"] == "momentum_buffer"
    assert kinds["embedding.weight"] == kinds["seven"] == "exp_avg_sq"


def resumed(world, case, tensors, steps):
    """STEPS more steps from the state in `tensors`."""
    with prepared(world, case) as (engine, module):
        state = engine.state()
        for piece in state.pieces:
            values = torch.from_numpy(tensors[piece.kind, piece.name]).reshape(-1)
            piece.data.copy_(values[piece.start : piece.start + piece.data.numel()])
        for name, buffer in state.buffers.items():
            if name.endswith("calls"):
                buffer.fill_(STEPS)
        engine.load(steps, {})
        taken = range(STEPS + 1, 2 * STEPS + 1)
        return outcome(engine, [one_step(world, engine, module, case, step) for step in taken])


@pytest.mark.parametrize(
    ("source", "target"), [("local", "fsdp"), pytest.param("fsdp", "oss", marks=SLOW)]
)
def test_another_engine_continues_with_the_state(worlds, source, target):
    full = worlds[2].run(train, Case(target, steps=2 * STEPS, muon=True))
    before = worlds[2].run(train, Case(source, steps=STEPS, muon=True))
    steps = {name: count for rank in before for name, count in rank.steps.items()}
    assert "blocks.0.qkv.weight" not in steps and steps["seven"] == STEPS
    after = worlds[2].run(resumed, Case(target, muon=True), joined(before), steps)
    np.testing.assert_allclose(after[0].losses, full[0].losses[STEPS:], rtol=1e-3)
    fresh = worlds[2].run(train, Case(target, steps=2, muon=True))
    assert abs(after[0].losses[0] - fresh[0].losses[0]) > 1e-2
