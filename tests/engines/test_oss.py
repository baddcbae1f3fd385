"""Each rank holds the slots of its own parameters only."""

import torch
from torch import nn

from engines.base import Options
from engines.oss import oss
from tests.engines.parity import Case, spec, train


def test_slots_are_sharded_evenly_and_weights_are_replicated(worlds):
    outcomes = worlds[2].run(train, Case("oss", steps=1))
    held = [
        {name: len(data) for kind, name, _, data, _ in outcome.pieces if kind == "exp_avg"}
        for outcome in outcomes
    ]
    assert not held[0].keys() & held[1].keys()
    elements = [sum(of_rank.values()) for of_rank in held]
    assert max(elements) < 1.1 * min(elements)
    for outcome in outcomes:
        weights = {name for kind, name, *_ in outcome.pieces if kind == "weight"}
        assert weights == outcome.shapes.keys()


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
