"""Gradient accumulation: unused layers, discarded gradients."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from engines.base import OptimizerSpec, Options
from engines.catalog import build_engine
from engines.world import open_world
from tests.engines.parity import TIME, Case, one_step, options, prepared
from tests.engines.test_parity import able

TOKENS = torch.arange(2 * TIME).view(2, TIME)


class Fork(nn.Module):
    """Two layers; the second one is optional."""

    def __init__(self):
        super().__init__()
        self.always, self.sometimes = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x, all_of_it):
        x = self.always(x)
        return self.sometimes(x) if all_of_it else x


def fork(world, engine_name, windows, precision="fp32"):
    """Gradient norms of a step for each window, whose passes use both layers or the first only.

    And the parameters named without gradient. Plain gradient descent: a gradient of zero and none
    are the same to it.
    """
    descent = OptimizerSpec([{}], lambda name, p: 0, lambda groups: torch.optim.SGD(groups, lr=0.05), None)
    chosen = replace(options(Case(engine_name, precision=precision), world), accumulation=len(windows[0]))
    torch.manual_seed(0)
    model = Fork()
    engine = build_engine(engine_name, world, chosen)
    try:
        module = engine.prepare(model, descent, [model.always, model.sometimes])
        draw = torch.Generator().manual_seed(world.rank)
        norms = []
        for window in windows:
            for number, all_of_it in enumerate(window, start=1):
                with engine.accumulate(last=number == len(window)):
                    outputs = module(torch.randn(3, 4, generator=draw), all_of_it)
                    engine.backward(outputs.square().sum())
            norms.append(engine.step().norm.item())
            assert [p.grad for p in model.parameters()] == [None] * 4
        return norms, list(engine.without_gradient)
    finally:
        engine.close()


# A step without the layer, one not in its last pass, and one now here, now there.
CHANGING = [
    *([False, False], [True, True], [False, False]),
    *([True, False], [True, True], [True, False]),
    *([False, True], [True, False], [False, True], [False, False]),
]
# DeepSpeed keeps gradients of steps of one pass, of fp32 weights and of the host elsewhere.
ALTERNATING = [[False], [True], [False], [True]]
PRECISIONS = {"fp32": 1e-5, "bf16": 0.02}


@able("ddp", "oss", "fsdp", "zero1", "zero2", "zero3", "zero2-offload", "zero3-offload")
def test_an_unused_layer_is_named_and_gets_no_gradient_of_an_earlier_step(worlds, engine):
    for windows in (CHANGING, ALTERNATING) if engine.endswith("offload") else (CHANGING,):
        plain = worlds[2].run(fork, "local", windows)[0][0]
        for precision in PRECISIONS if engine.startswith("zero") else ("fp32",):
            for norms, without_gradient in worlds[2].run(fork, engine, windows, precision):
                assert norms == pytest.approx(plain, rel=PRECISIONS[precision])
                assert sorted(without_gradient) == ["sometimes.bias", "sometimes.weight"]


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
    engine = build_engine("local", world, Options(graphs=True))
    module = engine.prepare(OneWeight(), descent, [])
    for number in (1, 2, 5):
        with engine.accumulate(last=number == 5):
            engine.backward(module(torch.eye(3)[0] * number))
    assert engine.step().norm.item() == 8
    engine.close()
