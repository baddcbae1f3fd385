from itertools import pairwise

import pytest
import torch
from torch import nn

from gearshift.engines.base import OptimizerSpec, Options
from gearshift.engines.catalog import build_engine
from gearshift.training.optim.ema import Ema
from tests.engines.parity import TIME, Case, one_step, prepared
from tests.engines.test_parity import able
from tests.training.tiny import TinyTask, one_rank, run_tiny

DECAY, NAME = 0.8, "linear.weight"
CHANGES = {"optim": {"lr": 0.1}, "save": {"every": 1, "keep_best": 0}}


@pytest.fixture(scope="module")
def run():
    return run_tiny(one_rank(), train={"epochs": 3, "ema": DECAY}, eval={"every": 1}, **CHANGES)


def test_the_average_is_that_of_its_definition(run):
    plain = run_tiny(one_rank(), train={"epochs": 3}, **CHANGES)
    torch.manual_seed(0)
    average = TinyTask().build().linear.weight.detach().clone()
    for step in range(1, 10):
        decay = min(DECAY, (1 + step) / (10 + step))
        weight = plain.shelf.saved[step]["pieces"]["weight", "linear.weight"].view(4, 4)
        average = decay * average + (1 - decay) * weight
        saved = run.shelf.saved[step]["pieces"]
        torch.testing.assert_close(saved["ema", "linear.weight"].view(4, 4), average)
        # The trained weights are bit-equal to those of a run without an average.
        assert torch.equal(saved["weight", "linear.weight"].view(4, 4), weight)


def test_evaluation_sees_the_average(run):
    task = TinyTask()
    model = task.build()
    split = task.data("val")
    batch = task.collate([split.sample(i, NoDraws()) for i in range(len(split))])
    saved = run.shelf.saved[9]["pieces"]
    errors = {}
    for kind in ("weight", "ema"):
        with torch.no_grad():
            model.linear.weight.copy_(saved[kind, "linear.weight"].view(4, 4))
            model.linear.bias.copy_(saved[kind, "linear.bias"])
        errors[kind] = task.metric().result(task.metric().update(model, batch).detach())["error"]
    found = run.recorder.evaluations[-1].metrics["error"]
    # The rows of the split depend slightly on their draws.
    assert abs(found - errors["ema"]) < abs(found - errors["weight"]) / 3


class NoDraws:
    def rng(self):
        return self

    def normal(self, size):
        return 0.0


def test_a_skipped_step_between_others_does_not_move_the_average():
    task = TinyTask(infinite_at=[9])
    train = {"epochs": 3, "ema": DECAY, "on_nonfinite": "skip 9"}
    run = run_tiny(one_rank(), task, train=train, **CHANGES)
    saved = [run.shelf.saved[step]["pieces"] for step in range(1, 10)]
    is_equal = {
        kind: [torch.equal(a[kind, NAME], b[kind, NAME]) for a, b in pairwise(saved)]
        for kind in ("weight", "ema")
    }
    assert is_equal["ema"] == is_equal["weight"] and sum(is_equal["weight"]) >= 2


TOKENS = torch.arange(2 * TIME).view(2, TIME)


def outputs_around_the_average(world, case):
    """Outputs before the average is in place, with it, and after; its factor of all outputs is zero."""
    with prepared(world, case) as (engine, module):
        average = Ema(engine, DECAY)
        for piece in average.pieces:
            if piece.name == "seven":
                piece.data.zero_()
        one_step(world, engine, module, case, step=1)
        module.eval()
        with torch.no_grad():
            before = module(TOKENS)
            with average.in_place(engine):
                inside = module(TOKENS)
            return before, inside, module(TOKENS)


@able("fsdp", "zero1", "zero3")
def test_the_model_computes_with_the_average_inside_and_with_its_own_weights_afterwards(
    worlds, engine
):
    """An evaluation leaves full weights behind if they are sharded, and zero has copies of them."""
    for before, inside, after in worlds[2].run(outputs_around_the_average, Case(engine)):
        assert before.any() and not inside.any()
        assert torch.equal(before, after)


def test_the_average_of_16_bits_moves_and_leaves_the_weights_as_they_were():
    model = nn.Linear(3, 3, bias=False).bfloat16()
    engine = build_engine("local", one_rank(), Options())
    spec = OptimizerSpec([{}], lambda *_: 0, lambda groups: torch.optim.SGD(groups, lr=0.1), None)
    engine.prepare(model, spec, [])
    average = Ema(engine, 0.999)
    expected = model.weight.detach().double()
    for step in range(50_000, 50_100):
        with torch.no_grad():
            model.weight.add_(torch.randn(3, 3) / 8)
        average.update(step)
        expected = 0.999 * expected + 0.001 * model.weight.detach().double()
    (piece,) = average.pieces
    torch.testing.assert_close(piece.data.double().view(3, 3), expected, rtol=1e-5, atol=1e-6)

    weight, stored = model.weight.detach().clone(), piece.data.clone()
    with average.in_place(engine):
        assert torch.equal(model.weight, expected.to(torch.bfloat16))
    assert torch.equal(model.weight, weight)
    assert torch.equal(piece.data, stored)
    engine.close()


def test_the_average_follows_a_parameter_that_gets_other_memory():
    model = nn.Linear(3, 3, bias=False)
    engine = build_engine("local", one_rank(), Options())
    spec = OptimizerSpec([{}], lambda *_: 0, lambda groups: torch.optim.SGD(groups, lr=0.1), None)
    engine.prepare(model, spec, [])
    average = Ema(engine, 0.5)
    expected = model.weight.detach().clone()
    for step in range(100, 104):
        model.weight.data = torch.randn(3, 3)
        average.update(step)
        expected = 0.5 * expected + 0.5 * model.weight.detach()
    torch.testing.assert_close(average.pieces[0].data.view(3, 3), expected)
    weight = model.weight.detach().clone()
    with average.in_place(engine):
        torch.testing.assert_close(model.weight.detach(), expected)
    assert torch.equal(model.weight, weight)
    engine.close()
