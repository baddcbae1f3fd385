"""Each rank holds the slots of its own parameters only."""

import torch
from torch import nn

from engines.base import Options
from engines.oss import oss
from tests.engines.parity import spec


def train_one_weight(world):
    torch.manual_seed(0)
    engine = oss(world, Options())
    module = engine.prepare(nn.Linear(3, 1, bias=False), spec(clip_norm=None, lr=0.1), [])
    for step in range(3):
        with engine.accumulate(last=True):
            engine.backward(module(torch.full((1, 3), step + 1.0)).square().sum())
        engine.step()
    (weight,) = [piece for piece in engine.state().pieces if piece.kind == "weight"]
    engine.close()
    return weight.data.tolist()


def test_a_rank_that_owns_no_parameter_follows_the_owner(worlds):
    (alone,) = worlds[1].run(train_one_weight)
    first, second = worlds[2].run(train_one_weight)
    assert first == second == alone
