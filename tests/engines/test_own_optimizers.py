"""Optimizers with slots: the numbers of torch's own, and a resume."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.optim import ASGD, SGD, Adagrad, NAdam, RMSprop, Rprop

from gearshift.engines.base import OptimizerSpec
from tests.engines.parity import around
from tests.engines.test_parity import able

SLOTS = {
    RMSprop: ("square_avg", "momentum_buffer", "grad_avg"),
    Rprop: ("prev", "step_size"),
    Adagrad: ("sum",),
    NAdam: ("exp_avg", "exp_avg_sq"),
    ASGD: ("ax",),
    SGD: (),
}
OPTIONS = {
    RMSprop: {"momentum": 0.9, "centered": True, "weight_decay": 0.1},
    Adagrad: {"initial_accumulator_value": 0.1, "lr_decay": 0.1},
    ASGD: {"t0": 2.0},
}
RESUMES = (RMSprop, Rprop, Adagrad, SGD)
"""Those whose other state, but the count, does not depend on earlier steps."""


class Fork(nn.Module):
    """Two layers and a scalar; the second layer is used from the second step on."""

    def __init__(self):
        super().__init__()
        self.always, self.later = nn.Linear(4, 4), nn.Linear(4, 4)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x, is_later):
        x = self.always(x) * self.scale
        return self.later(x) if is_later else x


def own(kind):
    """`kind` as a user writes it, whose class torch does not know."""
    return type(f"Own{kind.__name__}", (kind,), {"slots": lambda self, group: SLOTS[kind]})


def with_engine(world, engine_name, kind, first, last, saved=None):
    """Losses of the steps from `first` to `last`, and the state as it is saved."""
    torch.manual_seed(0)
    losses = []
    build = partial(own(kind), lr=0.02, **OPTIONS.get(kind, {}))
    with around(world, engine_name, Fork(), OptimizerSpec([{}], lambda *_: 0, build, None)) as (
        engine,
        module,
    ):
        if saved is not None:
            pieces, steps = saved[world.rank]
            for piece, data in zip(engine.state().pieces, pieces, strict=True):
                piece.data.copy_(data)
            engine.load(steps, {})
        for step in range(first, last + 1):
            with engine.accumulate(last=True):
                loss = loss_of(module, step)
                engine.backward(loss)
            engine.step()
            state = engine.state()  # as at each save
            losses.append(loss.item())
        return losses, ([piece.data.clone() for piece in state.pieces], dict(state.steps))


def loss_of(model, step):
    x = torch.randn(4, 4, generator=torch.Generator().manual_seed(step))
    return model(x, step > 1).square().mean()


def with_torch(kind, steps):
    torch.manual_seed(0)
    model, losses = Fork(), []
    optimizer = kind(model.parameters(), lr=0.02, **OPTIONS.get(kind, {}))
    for step in range(1, steps + 1):
        loss = loss_of(model, step)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("kind", SLOTS)
@able("local", "fsdp")
def test_the_steps_of_an_optimizer_with_slots_are_those_of_torch(worlds, engine, kind):
    if (engine, kind) == ("fsdp", Rprop):
        pytest.skip("torch's Rprop changes parts of tensors by a mask, which shards do not support")
    size = 1 + (engine != "local")
    plain = with_torch(kind, 5)
    for losses, _ in worlds[size].run(with_engine, engine, kind, 1, 5):
        assert losses == pytest.approx(plain, rel=1e-6)
    if kind in RESUMES:
        for last in (1, 3):  # after the first step a layer has no state yet
            saved = [state for _, state in worlds[size].run(with_engine, engine, kind, 1, last)]
            for losses, _ in worlds[size].run(with_engine, engine, kind, last + 1, 5, saved):
                assert losses == pytest.approx(plain[last:], rel=1e-6)
