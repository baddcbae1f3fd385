"""Muon: its step, and its state under the engines that have whole matrices."""

import numpy as np
import pytest
import torch

from tests.engines.parity import Case, distance, joined, one_step, outcome, prepared, train
from tests.engines.test_parity import able
from training.optim.muon import Muon, orthogonalized

STEPS = 3


@pytest.mark.parametrize("shape", [(8, 24), (24, 8)], ids=str)
def test_the_singular_values_of_a_step_are_near_one(shape):
    draw = torch.Generator().manual_seed(0)
    matrix = torch.randn(shape, generator=draw) * torch.logspace(0, -1, shape[1])
    values = torch.linalg.svdvals(orthogonalized(matrix.bfloat16()).float())
    assert values.min() > 0.6 and values.max() < 1.3
    assert torch.linalg.svdvals(matrix).max() > 3


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch.optim.Muon is of torch 2.9")
@pytest.mark.parametrize("shape", [(8, 24), (24, 8)], ids=str)
def test_a_matrix_is_updated_as_by_torch(shape):
    ours, theirs = (
        torch.nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(1)))
        for _ in range(2)
    )
    options = {"weight_decay": 0.1, "momentum": 0.9}
    optimizers = [
        Muon([{"params": [ours], **options}], lr=0.02),
        torch.optim.Muon([theirs], lr=0.02, adjust_lr_fn="match_rms_adamw", **options),
    ]
    for step in range(STEPS):
        gradient = torch.randn(shape, generator=torch.Generator().manual_seed(step))
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def reference(worlds):
    return worlds[1].run(train, Case("local", steps=2 * STEPS, muon=True))


@able("ddp", "oss", "fsdp")
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


@pytest.mark.parametrize(("source", "target"), [("local", "fsdp"), ("fsdp", "oss")])
def test_another_engine_continues_with_the_state(worlds, source, target):
    full = worlds[2].run(train, Case(target, steps=2 * STEPS, muon=True))
    before = worlds[2].run(train, Case(source, steps=STEPS, muon=True))
    steps = {name: count for rank in before for name, count in rank.steps.items()}
    assert "blocks.0.qkv.weight" not in steps and steps["seven"] == STEPS
    after = worlds[2].run(resumed, Case(target, muon=True), joined(before), steps)
    np.testing.assert_allclose(after[0].losses, full[0].losses[STEPS:], rtol=1e-3)
    fresh = worlds[2].run(train, Case(target, steps=2, muon=True))
    assert abs(after[0].losses[0] - fresh[0].losses[0]) > 1e-2
