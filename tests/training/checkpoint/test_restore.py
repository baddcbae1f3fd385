"""A checkpoint is restored into an engine of the same model, and into no other."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from gearshift.engines.base import OptimizerSpec, Options
from gearshift.engines.catalog import build_engine
from gearshift.training.checkpoint.manifest import CheckpointError
from gearshift.training.checkpoint.reader import open_checkpoint
from gearshift.training.checkpoint.restore import check, restore
from tests.training.checkpoint.states import BUFFERS, bits, saving, state, whole


class Net(nn.Module):
    """One parameter of each group, a frozen one, and a buffer."""

    def __init__(self, value):
        super().__init__()
        self.matrix = nn.Parameter(torch.full((3, 2), value))
        self.vector = nn.Parameter(torch.full((7,), value))
        self.frozen = nn.Parameter(torch.full((2,), value), requires_grad=False)
        self.register_buffer("seen", torch.tensor(int(value)))

    def forward(self, x):
        return self.matrix.sum() * x + self.vector.sum() * self.frozen.sum()


def engine_of(net, world, lr, optimizer=torch.optim.AdamW):
    spec = OptimizerSpec(
        options=[{"weight_decay": 0.1}, {"weight_decay": 0.0}],
        group_of=lambda name, parameter: 0 if parameter.dim() > 1 else 1,
        build=lambda groups: optimizer(groups, lr=lr),
        clip_norm=None,
    )
    engine = build_engine("local", world, Options())
    engine.prepare(net, spec, [])
    return engine


def trained(world, run, optimizer=torch.optim.AdamW):
    """The checkpoint of two steps."""
    net = Net(1.0)
    engine = engine_of(net, world, lr=0.5, optimizer=optimizer)
    for _ in range(2):
        with engine.accumulate(last=True):
            engine.backward(net(torch.tensor(2.0)))
        engine.step()
        net.seen += 1
    saver = saving(run, world)
    saver.save(2, engine.state(), {"samples": 2}, periodic=True, score=None)
    engine.close()
    folder = saver.wait()
    assert folder
    return folder


@pytest.fixture
def checkpoint(saved):
    """The engine of a hand-written state."""
    return open_checkpoint(saved)


FACTORS = {
    ("row_var", "matrix"): (3, 1),
    ("col_var", "matrix"): (1, 2),
    ("variance", "vector"): (7,),
}


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.Adafactor])
def test_the_whole_state_is_restored(tmp_path, alone, optimizer):
    checkpoint = open_checkpoint(trained(alone, tmp_path, optimizer))
    engine = engine_of(Net(5.0), alone, lr=0.25, optimizer=optimizer)
    restore(checkpoint, engine)
    state = engine.state()
    engine.close()
    if optimizer is torch.optim.Adafactor:  # factors of a moment are stored in their own shapes
        sizes = {(kind, n): tuple(checkpoint.tensor(kind, n).shape) for kind, n in FACTORS}
        assert sizes == FACTORS
    assert any(piece.data.any() for piece in state.pieces if piece.kind != "weight")
    for piece in state.pieces:
        assert bits(piece.data) == bits(checkpoint.tensor(piece.kind, piece.name)), piece.name
    assert state.steps == {"matrix": 2.0, "vector": 2.0}
    assert state.buffers["seen"] == 3
    assert [group["lr"] for group in state.groups] == [0.5, 0.5]


def test_nothing_is_written_into_another_model(tmp_path, alone):
    checkpoint = open_checkpoint(trained(alone, tmp_path))
    net = Net(5.0)
    net.extra = nn.Parameter(torch.zeros(3))
    engine = engine_of(net, alone, lr=0.25)
    with pytest.raises(CheckpointError, match="'extra' is nothing in the checkpoint"):
        restore(checkpoint, engine)
    assert bits(net.matrix.detach()) == bits(torch.full((3, 2), 5.0))
    assert net.seen == 5
    engine.close()


def with_momentum():
    """The slots of SGD."""
    adam = state(whole())
    renamed = [
        replace(p, kind={"exp_avg": "momentum_buffer"}.get(p.kind, p.kind))
        for p in adam.pieces
        if p.kind != "exp_avg_sq"
    ]
    return replace(adam, pieces=renamed)


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"shapes": {**state(whole()).shapes, "frozen": (6,)}}, "parameter 'frozen' is (5,)"),
        ({"shapes": {**state(whole()).shapes, "new": (2, 1)}}, "parameter 'new' is nothing"),
        ({"shapes": {"scalar": ()}}, "parameter 'embed.weight' is"),
        (
            {"buffers": {**BUFFERS, "counts": torch.zeros(3, 2, dtype=torch.int64)}},
            "buffer 'counts'",
        ),
        ({"buffers": {**BUFFERS, "half": torch.zeros(2)}}, "buffer 'half' is"),
        ({"pieces": with_momentum().pieces}, "only the checkpoint has exp_avg of 'odd|name'"),
    ],
)
def test_a_state_that_does_not_fit_is_named(checkpoint, changed, name):
    with pytest.raises(CheckpointError) as caught:
        check(checkpoint, replace(state(whole()), **changed))
    assert str(caught.value).startswith(f"{checkpoint.folder} does not fit the model, ")
    assert name in str(caught.value)
    assert ("--reset optimizer" in str(caught.value)) == ("pieces" in changed)


def restore_with_another_shape_on_rank_one(world, folder):
    """The error on this rank; rank one has another shape."""
    engine = engine_of(Net(5.0), world, lr=0.25)
    checkpoint = open_checkpoint(folder)
    if world.rank == 1:
        checkpoint.shapes = {**checkpoint.shapes, "vector": (8,)}
    try:
        restore(checkpoint, engine)
    except CheckpointError as error:
        return str(error)
    finally:
        engine.close()
    return "restored"


def test_a_state_that_one_rank_cannot_restore_is_restored_on_none(tmp_path, alone, two_ranks):
    folder = trained(alone, tmp_path)
    first, second = two_ranks.run(restore_with_another_shape_on_rank_one, folder)
    wrong = "parameter 'vector' is (8,) in the checkpoint and (7,) in the model"
    assert wrong in second and second.startswith("rank 1: ")
    assert first == second
