"""Gradient accumulation: discarded gradients, and those of CUDA graphs."""

from functools import partial

import pytest
import torch
from torch import nn

from gearshift.engines.base import OptimizerSpec
from gearshift.engines.world import open_world
from tests.engines.parity import TIME, Case, around, one_step, prepared
from tests.engines.test_fsdp import SMALL_GRADIENTS, norm_of_small_gradients
from tests.engines.test_parity import able

TOKENS = torch.arange(2 * TIME).view(2, TIME)


def step_after_discarding(world, case, passes):
    """The second step and the state after it; before it so many passes of two were discarded."""
    with prepared(world, case) as (engine, module):
        one_step(world, engine, module, case, step=1)
        module.eval()  # buffers stay as they are
        for number in range(1, passes + 1):
            with engine.accumulate(last=number == 2):
                engine.backward(1e3 * module(TOKENS).square().mean())
        if passes:
            engine.discard()
        module.train()
        taken = one_step(world, engine, module, case, step=2)
        return taken, [p.data.clone() for p in engine.state().pieces]


@able("local", "oss", "fsdp", "zero1", "zero2-offload", "zero3")
def test_discarded_gradients_leave_no_trace(worlds, engine):
    """After the last pass; under engines that can repeat a step, also before it."""
    case = Case(engine, precision="bf16" if engine in ("zero1", "zero3") else "fp32")
    counts = (0, 2) if engine in ("oss", "fsdp") else (0, 1, 2)
    plain, *discarded = (worlds[2].run(step_after_discarding, case, count) for count in counts)
    for outcomes in discarded:
        for (taken, pieces), (taken_after, pieces_after) in zip(plain, outcomes, strict=True):
            assert taken == taken_after
            assert all(torch.equal(*pair) for pair in zip(pieces, pieces_after, strict=True))


@able("local", "ddp", "oss")
def test_gradients_are_added_over_micro_batches_and_averaged_over_ranks_in_fp32(worlds, engine):
    assert (
        worlds[2].run(norm_of_small_gradients, engine)
        == [pytest.approx(SMALL_GRADIENTS, rel=1e-6)] * 2
    )


class Replayed(torch.autograd.Function):
    """The gradient of a weight as a CUDA graph gives it: in memory that the next pass overwrites."""

    @staticmethod
    def forward(ctx, weight, memory):
        ctx.memory = memory
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx, gradient):
        return ctx.memory.copy_(gradient).detach(), None


class OneWeight(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight, self.memory = nn.Parameter(torch.ones(3)), torch.zeros(3)

    def forward(self, x):
        return (Replayed.apply(self.weight, self.memory) * x).sum()


def test_gradients_of_cuda_graphs_are_kept_until_the_last_micro_batch():
    descent = OptimizerSpec([{}], lambda *_: 0, partial(torch.optim.SGD, lr=0.1), None)
    world = open_world("cpu", 5.0, always_group=False)
    with around(world, "local", OneWeight(), descent, graphs=True) as (engine, module):
        for number in (1, 2, 5):
            with engine.accumulate(last=number == 5):
                engine.backward(module(torch.eye(3)[0] * number))
        assert engine.step().norm.item() == 8
