"""Loading the step counts of another state."""

import torch

from engines.base import EngineError
from tests.engines.parity import TIME, Case, one_step, outcome, prepared
from tests.engines.test_parity import able

TOKENS = torch.arange(2 * TIME).view(2, TIME)


def after_loading(world, case, odd):
    """The state with 9 updates of each parameter, others in `odd`; or the error."""
    with prepared(world, case) as (engine, module):
        one_step(world, engine, module, case, step=1)
        names = [name for group in engine.state().groups for name in group["names"]]
        try:
            engine.load({**dict.fromkeys(names, 9.0), **odd}, {"value": 8.0, "good_updates": 3.0})
        except EngineError as error:
            return str(error)
        return outcome(engine, [])


@able("fsdp", "oss")
def test_parameters_may_differ_in_their_counts(worlds, engine):
    outcomes = worlds[2].run(after_loading, Case(engine), {"seven": 2.0})
    steps = {name: count for rank in outcomes for name, count in rank.steps.items()}
    assert steps.pop("seven") == 2.0
    assert set(steps.values()) == {9.0}


@able("zero1", "zero3")
def test_zero_rejects_counts_that_differ_within_a_group_unless_one_never_had_a_gradient(worlds, engine):
    odd = {"seven": 2.0, "norm.bias": 3.0}
    first, second = worlds[2].run(after_loading, Case(engine), odd)
    assert first == second
    assert "have 9, but not 'seven' (2), 'norm.bias' (3); use local, ddp, oss or fsdp" in first
    outcomes = worlds[2].run(after_loading, Case(engine), {"seven": 0.0})
    assert {count for rank in outcomes for count in rank.steps.values()} == {9.0}


@able("local", "fsdp", "zero1", "zero3")
def test_the_model_uses_loaded_weights_after_an_evaluation(worlds, engine):
    """An evaluation leaves full weights behind if they are sharded."""
    for outputs in worlds[2].run(outputs_before_and_after_clearing, Case(engine)):
        assert outputs[0].any()
        assert not outputs[1].any()


def outputs_before_and_after_clearing(world, case):
    """The outputs of an evaluation, and those after the factor of all outputs is zero."""
    with prepared(world, case) as (engine, module):
        module.eval()
        with torch.no_grad():
            before = module(TOKENS)
            state = engine.state()
            for piece in state.pieces:
                if (piece.kind, piece.name) == ("weight", "seven"):
                    piece.data.zero_()
            names = [name for group in state.groups for name in group["names"]]
            engine.load(dict.fromkeys(names, 1.0), {})
            return before, module(TOKENS)
