"""The engine ddp adds gradients in one order in all of its steps."""

from contextlib import closing
from unittest.mock import patch

import torch
from torch import nn

from tests.engines.parity import around, spec
from tests.engines.pool import Pool


def gradients_of_three_steps(world, idle):
    """Flat gradients of equal steps: the first is averaged by hand, the others by DDP."""
    torch.manual_seed(0)
    # 1.7 MiB of gradients: more than the first bucket of 1 MiB holds.
    net = nn.Sequential(*(nn.Linear(240, 240) for _ in range(8)))
    if idle:
        net.idle = nn.Parameter(torch.ones(3))
        net.forward = lambda x: nn.Sequential.forward(net[:8], x)
    x = torch.randn(2, 240, generator=torch.Generator().manual_seed(world.rank))
    steps = []
    with around(world, "ddp", net, spec(clip_norm=None, lr=0.0)) as (engine, module):
        for _ in range(3):
            with engine.accumulate(last=True):
                engine.backward(module(x).square().sum())
            grads = [p.grad for p in net.parameters() if p.grad is not None]
            steps.append(torch.cat([g.flatten() for g in grads]))
            engine.step()
    return steps


def test_the_first_step_sums_in_the_order_of_the_later_ones():
    """A sum of three has several orders; a resumed run starts with such a first step."""
    with closing(Pool(3)) as pool:
        for idle in (False, True):
            for first, second, third in pool.run(gradients_of_three_steps, idle):
                assert torch.equal(first, second) and torch.equal(second, third), idle


def agreements_of_steps(world, idle):
    """How often ranks agree on the parameters that were reached, in each of five steps."""
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    if idle:
        net.idle = nn.Parameter(torch.ones(3))
        net.forward = lambda x: nn.Sequential.forward(net[:2], x)
    counts = []
    with around(world, "ddp", net, spec(clip_norm=None, lr=0.0)) as (engine, module):
        for _ in range(5):
            with (
                patch.object(world, "agree", wraps=world.agree) as agree,
                patch.object(world, "maximum", wraps=world.maximum) as maximum,
                engine.accumulate(last=True),
            ):
                engine.backward(module(torch.ones(1, 2)).sum())
            counts.append(agree.call_count + maximum.call_count)
            engine.step()
    return counts


def test_a_parameter_that_is_never_reached_costs_one_agreement_as_others_do(worlds):
    for idle, counts in ((False, [1] * 5), (True, [1, 2, 1, 1, 1])):
        assert worlds[2].run(agreements_of_steps, idle) == [counts] * 2
