"""The zero engines: state, threads and errors."""

import re
from importlib.util import find_spec

import pytest
import torch

from gearshift.engines.base import EngineError
from gearshift.engines.zero.state import ZeroState
from tests.engines.parity import TIME, Case, Net, around, one_step, prepared, spec

if find_spec("deepspeed") is None:  # imported by the worlds, which takes seconds
    pytest.skip("needs DeepSpeed", allow_module_level=True)

TOKENS = torch.arange(2 * TIME).view(2, TIME)


def drawn(kind, name, shape):
    """Values that are unique to a tensor; positive, like second moments."""
    seed = sum(f"{kind} {name}".encode())
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def overwrite(state):
    """Write unique values into the pieces of each tensor."""
    for piece in state.pieces:
        full = drawn(piece.kind, piece.name, state.shapes[piece.name]).view(-1)
        piece.data.copy_(full[piece.start : piece.start + piece.data.numel()])


def outputs_after_writing(world, case):
    """Outputs after other weights were written into the pieces, and those of a plain model."""
    with prepared(world, case) as (engine, module):
        one_step(world, engine, module, case, step=1)
        state = engine.state()
        overwrite(state)
        engine.refresh()
        weights = {name: drawn("weight", name, shape) for name, shape in state.shapes.items()}
        weights["head.weight"] = weights["embedding.weight"]
        plain = Net()
        plain.load_state_dict({**weights, **state.buffers})
        for parameter in plain.parameters():
            parameter.data = parameter.data.to(torch.bfloat16)
        module.eval()
        plain.eval()
        with torch.no_grad():
            return module(TOKENS), plain(TOKENS).float()


@pytest.mark.parametrize("engine", ["zero1", "zero3"])
def test_weights_follow_the_fp32_pieces_after_a_refresh(worlds, engine):
    case = Case(engine, precision="bf16")
    for outputs, expected in worlds[2].run(outputs_after_writing, case):
        # Rounded to bf16 at different points before sums of 3.
        torch.testing.assert_close(outputs, expected, rtol=0.0, atol=0.03)


def check_after_moving_masters(world, case):
    """The error if the fp32 weights differ from the working weights."""
    with prepared(world, case) as (engine, module):
        overwrite(engine.state())
        with pytest.raises(EngineError) as error:
            ZeroState(module.optimizer, module.module, world, {}).check()
    return str(error.value)


@pytest.mark.parametrize("engine", ["zero1", "zero3"])
def test_master_weights_that_differ_from_the_weights_are_refused_on_all_ranks(worlds, engine):
    for message in worlds[2].run(check_after_moving_masters, Case(engine)):
        assert re.fullmatch(r"the fp32 copies of \d+ parameters differ from their weights", message)


def rejection(world, case):
    with pytest.raises(EngineError) as error, prepared(world, case):
        pass
    return str(error.value)


def test_a_value_that_deepspeed_rejects_is_shown_with_its_message(worlds):
    case = Case("zero2", zero={"reduce_bucket_size": "big"})
    (message,) = worlds[1].run(rejection, case)
    assert re.fullmatch(
        r"deepspeed \S+ rejects its config: reduce_bucket_size: Input should be .*", message
    )


def threads(world, case):
    """Threads before an engine that may offload to three of them, with it, and after it."""
    before, net = torch.get_num_threads(), Net()
    with around(world, case.engine, net, spec(None, 1e-3), net.blocks, offload_threads=3):
        inside = torch.get_num_threads()
    return [before, inside, torch.get_num_threads()]


def test_only_offloading_computes_with_the_given_threads(worlds):
    assert worlds[1].run(threads, Case("zero2-offload")) == [[1, 3, 1]]
    assert worlds[1].run(threads, Case("zero2")) == [[1, 1, 1]]


def inexact(world, case):
    """The names of the weights whose fp32 values are not those of the model before it was rounded."""
    torch.manual_seed(3)
    expected = Net().state_dict()
    with prepared(world, case, seed=3) as (engine, _):
        wrong = []
        for piece in engine.state().pieces:
            if piece.kind == "weight" and piece.name != "frozen.weight":
                part = expected[piece.name].view(-1)[piece.start :][: piece.data.numel()]
                wrong += [] if torch.equal(piece.data.cpu(), part) else [piece.name]
        return wrong


@pytest.mark.parametrize("engine", ["zero1", "zero3"])
def test_weights_of_16_bits_have_the_fp32_values_of_the_model(worlds, engine):
    assert worlds[2].run(inexact, Case(engine, precision="bf16")) == [[], []]
