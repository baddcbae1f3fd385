"""Adafactor, with factored slots, under the engines with full weights."""

import numpy as np
import pytest
import torch
from torch import nn

from engines.base import OptimizerSpec, kind_shape
from tests.engines.parity import around

STEPS = 3


def trained(world, engine):
    """The state of a rank after some steps on halves of a batch, by kind and name."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    spec = OptimizerSpec(
        options=[{}],
        group_of=lambda name, parameter: 0,
        build=lambda groups: torch.optim.Adafactor(groups, lr=0.1, eps=(None, 1.0)),
        clip_norm=None,
    )
    with around(world, engine, net, spec) as (built, module):
        for step in range(STEPS):
            draw = torch.Generator().manual_seed(step)
            rows = torch.randn(8, 6, generator=draw).chunk(world.size)[world.rank]
            with built.accumulate(last=True):
                built.backward(module(rows).square().sum() / 8 * world.size)
            built.step()
        state = built.state()
        for piece in state.pieces:
            assert piece.data.numel() == np.prod(kind_shape(piece.kind, state.shapes[piece.name]))
        return {(piece.kind, piece.name): piece.data.tolist() for piece in state.pieces}


@pytest.mark.parametrize("engine", ["ddp", "oss"])
def test_two_ranks_have_the_state_of_one(worlds, engine):
    (alone,) = worlds[1].run(trained, "local")
    first, second = worlds[2].run(trained, engine)
    kinds = {kind for kind, _ in alone}
    assert kinds == {"weight", "row_var", "col_var", "variance"}
    assert {**first, **second}.keys() == alone.keys()
    for found in (first, second):
        for key, values in found.items():
            np.testing.assert_allclose(values, alone[key], rtol=1e-4, atol=1e-6)
    shared = {key for key in first.keys() & second.keys() if key[0] != "weight"}
    assert bool(shared) == (engine != "oss")
