"""The engine ddp equals local where torch's DDP fails."""

from contextlib import closing

import pytest
import torch
from torch import nn

from engines.base import Options
from engines.catalog import build_engine
from engines.ddp import ddp
from tests.engines.parity import spec
from tests.engines.pool import Pool


class Branches(nn.Module):
    """Uses the given parameters, and never `idle`."""

    def __init__(self):
        super().__init__()
        self.left, self.right, self.idle = (nn.Linear(2, 1) for _ in range(3))

    def forward(self, x, use_left):
        return (self.left if use_left else self.right)(x)


def train_branches(world, engine_name):
    """Ranks take different branches; the first micro-batch of each step takes the other one."""
    torch.manual_seed(0)
    net = Branches()
    engine = build_engine(engine_name, world, Options())
    module = engine.prepare(net, spec(clip_norm=None, lr=0.1), [])
    for step in range(4):
        for micro_batch in range(2):
            with engine.accumulate(last=micro_batch == 1):
                # In step 0 rank 0 takes the left twice, later each rank takes one of them twice.
                use_left = world.rank == 0 if step else micro_batch == 0 or world.rank == 0
                engine.backward(module(torch.ones(1, 2) + step, use_left).sum())
        engine.step()
    engine.close()
    weights = torch.cat([p.detach().flatten() for p in net.parameters()])
    return weights.tolist(), list(engine.without_gradient)


@pytest.mark.parametrize("engine", ["ddp", "oss"])
def test_ranks_may_use_different_parameters(worlds, engine):
    expected, idle = worlds[2].run(train_branches, "local")[0]
    for weights, without_gradient in worlds[2].run(train_branches, engine):
        assert weights == pytest.approx(expected, abs=1e-6)
        assert without_gradient == idle == ["idle.weight", "idle.bias"]


def gradients_of_three_steps(world, idle):
    """Flat gradients of equal steps: the first is averaged by hand, the others by DDP."""
    torch.manual_seed(0)
    # 1.7 MiB of gradients: more than the first bucket of 1 MiB holds.
    net = nn.Sequential(*(nn.Linear(240, 240) for _ in range(8)))
    if idle:
        net.idle = nn.Parameter(torch.ones(3))
        net.forward = lambda x: nn.Sequential.forward(net[:8], x)
    engine = ddp(world, Options())
    module = engine.prepare(net, spec(clip_norm=None, lr=0.0), [])
    x = torch.randn(2, 240, generator=torch.Generator().manual_seed(world.rank))
    steps = []
    for _ in range(3):
        with engine.accumulate(last=True):
            engine.backward(module(x).square().sum())
        grads = [p.grad for p in net.parameters() if p.grad is not None]
        steps.append(torch.cat([g.flatten() for g in grads]))
        engine.step()
    engine.close()
    return steps


def test_the_first_step_sums_in_the_order_of_the_later_ones():
    """A sum of three has several orders; a resumed run starts with such a first step."""
    with closing(Pool(3)) as pool:
        for idle in (False, True):
            for first, second, third in pool.run(gradients_of_three_steps, idle):
                assert torch.equal(first, second) and torch.equal(second, third), idle
