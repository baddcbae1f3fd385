"""The state has every element once, by name, as views."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from engines.base import EngineError, Options, Piece, State
from engines.catalog import build_engine
from engines.state import check_cover, fill_slots
from engines.world import open_world
from tests.engines.parity import Net, spec
from tests.engines.test_parity import able
from training.optim.muon import Muon


@pytest.fixture
def world():
    return open_world("cpu", 5.0, always_group=False)


@pytest.fixture
def prepared(world):
    """A net under the engine local, and the engine."""
    torch.manual_seed(0)
    net = Net()
    engine = build_engine("local", world, Options())
    engine.prepare(net, spec(None, lr=1e-3), list(net.blocks))
    yield net, engine
    engine.close()


def test_a_state_names_each_tensor_once_and_holds_none_in_its_groups(prepared):
    net, engine = prepared
    state = engine.state()
    kinds = {}
    for piece in state.pieces:
        kinds.setdefault(piece.name, []).append(piece.kind)
    assert kinds["frozen.weight"] == ["weight"]
    assert kinds["seven"] == ["weight", "exp_avg", "exp_avg_sq"]
    assert "embedding.weight" in kinds and "head.weight" not in kinds  # tied
    assert state.shapes["seven"] == (7,)
    assert kinds.keys() == state.shapes.keys() == dict(net.named_parameters()).keys()
    stored = {name for name in net.state_dict() if name not in dict(net.named_parameters())}
    assert state.buffers.keys() == stored - {"head.weight"}
    assert "table" not in state.buffers  # it is not persistent
    decayed, plain = state.groups
    assert decayed["weight_decay"] == 0.1 and plain["weight_decay"] == 0.0
    assert "blocks.0.qkv.weight" in decayed["names"] and "seven" in plain["names"]
    assert "params" not in decayed


@pytest.mark.parametrize(
    "build",
    [
        lambda groups: torch.optim.AdamW(groups, lr=0.1, amsgrad=True),
        lambda groups: torch.optim.AdamW(groups, lr=0.1, fused=True),
        lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9),
        lambda groups: torch.optim.SGD(groups, lr=0.1),
        lambda groups: torch.optim.Adafactor(groups, lr=0.1),
        lambda groups: Muon(groups, lr=0.1, fused=True),
    ],
    ids=["amsgrad", "fused", "momentum", "sgd", "adafactor", "muon"],
)
def test_slots_created_early_equal_those_of_the_first_step(build):
    for shape in ((3,), (2, 3), (2, 4, 3)):
        filled, fresh = (torch.nn.Parameter(torch.ones(shape)) for _ in range(2))
        optimizers = [build([{"params": [p]}]) for p in (filled, fresh)]
        fill_slots(optimizers[0])
        kinds = _forms(optimizers[0].state[filled])
        for step in range(3):
            for parameter, optimizer in zip((filled, fresh), optimizers, strict=True):
                parameter.grad = torch.tensor([1.0, -2.0, 0.5]).expand(shape) * (step + 1)
                optimizer.step()
        assert torch.equal(filled, fresh), shape
        assert kinds == _forms(optimizers[1].state[fresh]), shape


def _forms(slots):
    found = {key: value for key, value in slots.items() if value is not None}
    return {key: (value.dtype, tuple(value.shape)) for key, value in found.items()}


def test_factors_of_a_moment_have_a_number_for_each_row_and_each_column(world):
    shapes = {"w": (5, 4, 3), "b": (4,)}

    def piece(kind, name, length):
        return Piece(kind, name, 0, torch.zeros(length))

    complete = [piece("weight", "w", 60), piece("weight", "b", 4), piece("variance", "b", 4)]
    factors = [piece("row_var", "w", 20), piece("col_var", "w", 15)]
    check_cover(State(shapes, [*complete, *factors], {}, {}, [], {}), world)
    with pytest.raises(EngineError, match="holds 14 of the 15 elements of col_var of 'w'"):
        short = [*complete, factors[0], piece("col_var", "w", 14)]
        check_cover(State(shapes, short, {}, {}, [], {}), world)


def _state(*pieces):
    return State({"w": (4,)}, pieces, {}, {}, [], {})


def _piece(start, length, kind="weight"):
    return Piece(kind, "w", start, torch.zeros(length))


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        ([_piece(0, 3)], "holds 3 of the 4 elements of weight of 'w'"),
        ([_piece(0, 4), _piece(3, 1)], "holds 5 of the 4 elements of weight"),
        ([_piece(0, 4), _piece(0, 2, "exp_avg_sq")], "holds 2 of the 4 elements of exp_avg_sq"),
        ([], "holds 0 of the 4 elements of weight"),
    ],
)
def test_a_state_with_a_hole_or_an_overlap_is_an_error(world, pieces, text):
    check_cover(_state(_piece(0, 3), _piece(3, 1), _piece(0, 4, "exp_avg")), world)
    check_cover(_state(replace(_piece(0, 4), replica=(world.rank, world.size))), world)
    with pytest.raises(EngineError, match=text):
        check_cover(_state(*pieces), world)


class Counting(nn.Module):
    """Batch statistics, a counter that is reassigned, and a constant."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(2)
        self.register_buffer("count", torch.zeros(1, dtype=torch.int64))
        self.register_buffer("constant", torch.zeros(1), persistent=False)

    def forward(self, x):
        self.count = self.count + len(x)
        self.constant.fill_(x[0, 0].item())
        return self.norm(x)


def count(world, engine_name):
    net = Counting()
    engine = build_engine(engine_name, world, Options())
    module = engine.prepare(net, spec(clip_norm=None, lr=0.1), [])
    with engine.accumulate(last=True):
        engine.backward(module(torch.arange(8.0).reshape(4, 2) * (world.rank + 1)).sum())
    engine.step()
    held = {name: buffer.tolist() for name, buffer in engine.state().buffers.items()}
    engine.close()
    return held, net.constant.item(), net.norm.running_mean.tolist()


@able("ddp", "fsdp")
def test_statistics_are_those_of_rank_zero(worlds, engine):
    (held, _, mean), (other, _, other_mean) = worlds[2].run(count, engine)
    assert held == other
    assert held["count"] == [4] and "constant" not in held
    # A tenth of the mean of rank 0's batch: columns 0, 2, 4, 6 and 1, 3, 5, 7.
    assert held["norm.running_mean"] == mean == other_mean == pytest.approx([0.3, 0.4])
