"""The engine ddp adds gradients in one order in all of its steps."""

from contextlib import closing
from unittest.mock import patch

import torch
from torch import nn

from gearshift.engines.base import OptimizerSpec
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


class Branches(nn.Module):
    """Each rank uses a branch of its own, and none the last one."""

    def __init__(self, rank):
        super().__init__()
        self.rank = rank
        self.branches = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))

    def forward(self, x):
        return self.branches[self.rank](x)


def steps_of_branches(world, accumulation):
    """Of each of four steps: the agreements, and the gradients of the biases or None."""
    torch.manual_seed(0)
    net = Branches(world.rank)
    steps = []
    with around(world, "ddp", net, spec(clip_norm=None, lr=0.0)) as (engine, module):
        for _ in range(4):
            with (
                patch.object(world, "agree", wraps=world.agree) as agree,
                patch.object(world, "maximum", wraps=world.maximum) as maximum,
            ):
                for number in range(accumulation):
                    with engine.accumulate(last=number == accumulation - 1):
                        engine.backward(module(torch.ones(1, 2)).sum())
            biases = [branch.bias.grad for branch in net.branches]
            gradients = [None if grad is None else grad.tolist() for grad in biases]
            steps.append((agree.call_count + maximum.call_count, gradients))
            engine.step()
    return steps


def test_what_any_rank_reached_has_a_gradient_and_no_step_waits_to_agree_on_it(worlds):
    for accumulation in (1, 2):
        half = [accumulation / 2] * 2
        expected = [(0, [half, half, None])] * 4
        assert worlds[2].run(steps_of_branches, accumulation) == [expected] * 2


def hook_calls(world):
    """The gradients that hooks of a parameter saw; the last micro-batch does not reach it."""
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    model.forward = lambda x, uses_b: model["b" if uses_b else "a"](x)
    seen = []
    model["b"].bias.register_hook(lambda gradient: seen.append(gradient.tolist()))
    model["b"].bias.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.tolist()))
    sgd = OptimizerSpec([{}], lambda *_: 0, lambda groups: torch.optim.SGD(groups, lr=0.1), None)
    with around(world, "ddp", model, sgd, []) as (engine, module):
        for number in (1, 2, 3):
            with engine.accumulate(last=number == 3):
                engine.backward(module(torch.ones(1, 2), number == 1).sum())
        engine.step()
    return seen


def test_hooks_do_not_see_the_zeros_of_a_parameter_that_the_last_micro_batch_does_not_reach(worlds):
    assert worlds[2].run(hook_calls) == [[[1.0, 1.0], [1.0, 1.0]]] * 2
