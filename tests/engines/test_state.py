"""The state has every element once, by name, as views; step counts of another state are loaded."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from gearshift.engines.base import EngineError, Piece, State
from gearshift.engines.state import fill_slots, read_counts
from gearshift.engines.state_cover import check_cover
from gearshift.engines.world import open_world
from gearshift.training.optim.muon import Muon
from tests.engines.parity import TIME, Case, Net, around, one_step, outcome, prepared, spec
from tests.engines.test_parity import able


@pytest.fixture
def world():
    return open_world("cpu", 5.0, always_group=False)


@pytest.fixture
def local(world):
    """A net under the engine local, and the engine."""
    torch.manual_seed(0)
    net = Net()
    with around(world, "local", net, spec(None, lr=1e-3), net.blocks) as (engine, _):
        yield net, engine


def test_a_state_names_each_tensor_once_and_holds_none_in_its_groups(local):
    net, engine = local
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


SHAPES = {"w": (5, 4, 3)}


def state(*pieces):
    return State(
        SHAPES,
        [Piece(kind, "w", start, torch.zeros(n)) for kind, start, n in pieces],
        {},
        {},
        [],
        {},
    )


WHOLE = [
    ("weight", 0, 59),
    ("weight", 59, 1),
    ("exp_avg", 0, 60),
    ("row_var", 0, 20),
    ("col_var", 0, 15),
]
"""Factors of a moment have a number for each row and each column."""


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        (WHOLE[:1], "holds 59 of the 60 elements of weight of 'w'"),
        ([*WHOLE, WHOLE[0]], "holds 119 of the 60 elements of weight"),
        ([*WHOLE[:2], ("exp_avg_sq", 0, 2)], "holds 2 of the 60 elements of exp_avg_sq"),
        ([*WHOLE[:4], ("col_var", 0, 14)], "holds 14 of the 15 elements of col_var"),
        ([], "holds 0 of the 60 elements of weight"),
    ],
)
def test_a_state_with_a_hole_or_an_overlap_is_an_error(world, pieces, text):
    check_cover(state(*WHOLE), world)
    replica = replace(state(("weight", 0, 60)).pieces[0], replica=(world.rank, world.size))
    check_cover(State(SHAPES, [replica], {}, {}, [], {}), world)
    with pytest.raises(EngineError, match=text):
        check_cover(state(*pieces), world)


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
    with around(world, engine_name, net, spec(clip_norm=None, lr=0.1)) as (engine, module):
        with engine.accumulate(last=True):
            engine.backward(module(torch.arange(8.0).reshape(4, 2) * (world.rank + 1)).sum())
        engine.step()
        held = {name: buffer.tolist() for name, buffer in engine.state().buffers.items()}
    return held, net.constant.item(), net.norm.running_mean.tolist()


@able("ddp", "fsdp")
def test_statistics_are_those_of_rank_zero(worlds, engine):
    (held, _, mean), (other, _, other_mean) = worlds[2].run(count, engine)
    assert held == other
    assert held["count"] == [4] and "constant" not in held
    # A tenth of the mean of rank 0's batch: columns 0, 2, 4, 6 and 1, 3, 5, 7.
    assert held["norm.running_mean"] == mean == other_mean == pytest.approx([0.3, 0.4])


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
def test_zero_rejects_counts_that_differ_within_a_group_unless_one_never_had_a_gradient(
    worlds, engine
):
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


class Reads(TorchDispatchMode):
    """Counts the numbers that are read from tensors one by one."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **kwargs or {})


def reads(world, case):
    with prepared(world, case) as (engine, module):
        one_step(world, engine, module, case, 1)
        with Reads() as mode:
            state = engine.state()
    return mode.count, set(state.steps.values())


@able("local", "fsdp", "zero2", "zero3")
def test_steps_are_not_read_one_by_one(worlds, engine):
    for count, steps in worlds[1 if engine == "local" else 2].run(reads, Case(engine)):
        assert (count, steps) == (0, {1.0})


def test_counts_of_any_kind_are_read():
    counts = {
        "number": 3,
        "float": torch.tensor(2.0),
        "whole": torch.tensor(2**24 + 1),
        "vector": torch.tensor([4.0]),
        "other": torch.tensor(5.0),
    }
    expected = {"number": 3.0, "float": 2.0, "whole": 2.0**24 + 1, "vector": 4.0, "other": 5.0}
    found = read_counts(counts)
    assert found == expected and list(found) == list(counts)
