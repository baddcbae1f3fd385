"""Parameters without an axis or elements, unused, frozen, shared or in another layout train."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gearshift.engines.base import OptimizerSpec
from gearshift.engines.parameters import check_parameters, with_dense_tensors
from gearshift.training.checkpoint.tensor_file import DTYPES
from tests.engines.parity import StepResult, around, joined, outcome
from tests.engines.test_parity import all_engines

STEPS, SAMPLES, ACCUMULATION = 3, 12, 3


class Odd(nn.Module):
    """One parameter of each odd kind, at the root and in a block."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 8)
        self.first.weight = nn.Parameter(torch.randn(8, 16).mul(0.3).t())  # not contiguous
        self.first.bias.requires_grad_(False)
        self.shared = nn.Linear(16, 8)
        self.shared.weight = self.second.weight
        self.scale = nn.Parameter(torch.tensor(1.3))
        self.second.register_parameter("scale", nn.Parameter(torch.tensor(0.9)))
        self.fixed_scale = nn.Parameter(torch.tensor(0.7), requires_grad=False)
        self.one = nn.Parameter(torch.tensor([1.1]))
        self.rows = nn.Parameter(torch.empty(0, 3))
        self.first.register_parameter("empty", nn.Parameter(torch.empty(0)))
        self.fixed_empty = nn.Parameter(torch.empty(2, 0), requires_grad=False)
        self.second.register_parameter("unused", nn.Parameter(torch.ones(3)))

    def forward(self, x):
        x = self.first(x).relu()
        x = (self.second(x) + self.shared(x)) * self.second.scale + self.rows.sum()
        return (x.sum(1, keepdim=True) + self.fixed_scale) * self.scale * self.one


SPEC = OptimizerSpec(
    [{"weight_decay": 0.1}, {"weight_decay": 0.0}],
    lambda name, parameter: 0 if parameter.ndim > 1 else 1,
    lambda groups: torch.optim.AdamW(groups, lr=1e-2, fused=True),
    clip_norm=0.5,
)


def train(world, engine_name):
    world.local_size = world.size
    torch.manual_seed(0)
    model = with_dense_tensors(Odd)
    check_parameters(model, [model.first, model.second], engine_name, world.size, DTYPES)
    with around(world, engine_name, model, SPEC, [model.first, model.second]) as (engine, module):
        return outcome(engine, [one_step(world, engine, module, step) for step in range(STEPS)])


def one_step(world, engine, module, step):
    x = torch.randn(SAMPLES, 8, generator=torch.Generator().manual_seed(step))
    total = torch.zeros(())
    for index, part in enumerate(x.chunk(ACCUMULATION), start=1):
        own = part.chunk(world.size)[world.rank]
        with engine.accumulate(last=index == ACCUMULATION):
            loss = F.mse_loss(module(own).float(), own.sum(1, keepdim=True), reduction="sum")
            total += loss.detach()
            engine.backward(loss * world.size / SAMPLES)
    update = engine.step()
    mean = (world.sum(total) / SAMPLES).item()
    return StepResult(mean, update.norm.item(), update.skipped, update.loss_scale)


# Of gradients that nearly cancel out, float32 keeps four digits.
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def plain(worlds):
    return worlds[1].run(train, "local")


@all_engines
def test_every_odd_parameter_trains_as_under_local(worlds, plain, engine):
    outcomes = worlds[2].run(train, engine)
    assert outcomes[0].losses == pytest.approx(plain[0].losses, rel=TOLERANCE)
    assert outcomes[0].norms == pytest.approx(plain[0].norms, rel=TOLERANCE)
    mine, theirs = joined(outcomes), joined(plain)
    assert mine.keys() == theirs.keys()
    for key, value in theirs.items():
        scale = np.abs(value).max(initial=0.0) or 1.0
        np.testing.assert_allclose(mine[key], value, atol=TOLERANCE * scale, err_msg=f"{key}")
    assert [rank.without_gradient for rank in outcomes] == [["second.unused"]] * 2
