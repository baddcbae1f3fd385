"""Parameters without an axis or elements, unused, frozen, shared or in another layout train."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from engines.base import EngineError, OptimizerSpec, Options
from engines.catalog import ENGINES, build_engine, find
from engines.parameters import check_parameters, with_dense_tensors
from engines.zero.config import shipped
from tests.engines.parity import StepResult, joined, outcome
from tests.engines.test_parity import SHARDED, able, all_engines

STEPS, SAMPLES, ACCUMULATION = 3, 12, 3


class Odd(nn.Module):
    """One parameter of each odd kind, at the root and in a block."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 8)
        self.first.weight = nn.Parameter(torch.randn(8, 16).mul(0.3).t())  # not contiguous
        self.first.bias.requires_grad_(False)
        self.shared = nn.Linear(16, 8)
        self.shared.weight = self.second.weight
        self.scale = nn.Parameter(torch.tensor(1.3))
        self.second.register_parameter("scale", nn.Parameter(torch.tensor(0.9)))
        self.fixed_scale = nn.Parameter(torch.tensor(0.7), requires_grad=False)
        self.one = nn.Parameter(torch.tensor([1.1]))
        self.rows = nn.Parameter(torch.empty(0, 3))
        self.first.register_parameter("empty", nn.Parameter(torch.empty(0)))
        self.fixed_empty = nn.Parameter(torch.empty(2, 0), requires_grad=False)
        self.second.register_parameter("unused", nn.Parameter(torch.ones(3)))

    def forward(self, x):
        x = self.first(x).relu()
        x = (self.second(x) + self.shared(x)) * self.second.scale + self.rows.sum()
        return (x.sum(1, keepdim=True) + self.fixed_scale) * self.scale * self.one


SPEC = OptimizerSpec(
    [{"weight_decay": 0.1}, {"weight_decay": 0.0}],
    lambda name, parameter: 0 if parameter.ndim > 1 else 1,
    lambda groups: torch.optim.AdamW(
        groups, lr=1e-2, fused=all(p.is_floating_point() for g in groups for p in g["params"])
    ),
    clip_norm=0.5,
)


def train(world, engine_name, model_class=Odd, precision="fp32", before=None):
    """The steps of a run, after those of the ranks `before` that another engine took."""
    world.local_size = world.size
    torch.manual_seed(0 if before is None else 1)
    model = with_dense_tensors(model_class)
    check_parameters(model, [model.first, model.second], engine_name, world.size)
    file = find(engine_name).ds_config
    layout = shipped(file) if file else {}
    engine = build_engine(engine_name, world, Options(precision=precision, ds_config=layout))
    try:
        module = engine.prepare(model, SPEC, [model.first, model.second])
        if before is not None:
            saved = joined(list(before))
            for piece in engine.state().pieces:
                flat = torch.from_numpy(saved[piece.kind, piece.name].reshape(-1))
                piece.data.copy_(flat[piece.start : piece.start + piece.data.numel()])
            engine.load({n: count for o in before for n, count in o.steps.items()}, {})
        first = STEPS * (before is not None)
        taken = [one_step(world, engine, module, first + step) for step in range(STEPS)]
        return outcome(engine, taken)
    finally:
        engine.close()


def one_step(world, engine, module, step):
    x = torch.randn(SAMPLES, 8, generator=torch.Generator().manual_seed(step))
    total = torch.zeros(())
    for index, part in enumerate(x.chunk(ACCUMULATION), start=1):
        own = part.chunk(world.size)[world.rank]
        with engine.accumulate(last=index == ACCUMULATION):
            loss = F.mse_loss(module(own).float(), own.sum(1, keepdim=True), reduction="sum")
            total += loss.detach()
            engine.backward(loss * world.size / SAMPLES)
    update = engine.step()
    mean = (world.sum(total) / SAMPLES).item()
    return StepResult(mean, update.norm.item(), update.skipped, update.loss_scale)


def assert_equal(outcomes, others, tolerance):
    assert outcomes[0].losses == pytest.approx(others[0].losses, rel=tolerance)
    assert outcomes[0].norms == pytest.approx(others[0].norms, rel=tolerance)
    mine, theirs = joined(outcomes), joined(others)
    assert mine.keys() == theirs.keys()
    for (kind, name), value in theirs.items():
        scale = np.abs(value).max(initial=0.0) or 1.0
        np.testing.assert_allclose(
            mine[kind, name], value, atol=tolerance * scale, err_msg=f"{kind} of {name}"
        )


# Of gradients that nearly cancel out, float32 keeps four digits.
TOLERANCE = 1e-4


@all_engines
def test_every_odd_parameter_trains_as_under_local(worlds, engine):
    plain = worlds[1].run(train, "local")
    outcomes = worlds[2].run(train, engine)
    assert_equal(outcomes, plain, TOLERANCE)
    assert [rank.without_gradient for rank in outcomes] == [["second.unused"]] * 2


@able("ddp", "fsdp-offload", "zero2-offload", "zero3")
def test_odd_parameters_train_in_16_bits(worlds, engine):
    same = "zero1" if engine in SHARDED else "local"
    outcomes = worlds[2].run(train, engine, Odd, "bf16")
    assert_equal(outcomes, worlds[2].run(train, same, Odd, "bf16"), 3e-2)


@able("ddp", "oss", "fsdp", "zero3")
def test_a_state_with_odd_parameters_goes_on_under_another_engine(worlds, engine):
    """Local to each engine and back: the unused parameter has no steps under local."""
    start = worlds[1].run(train, "local")
    straight = worlds[1].run(train, "local", Odd, "fp32", start)
    there = worlds[2].run(train, engine, Odd, "fp32", start)
    assert there[0].losses == pytest.approx(straight[0].losses, rel=1e-5)
    back = worlds[1].run(train, "local", Odd, "fp32", worlds[2].run(train, engine))
    assert back[0].losses == pytest.approx(straight[0].losses, rel=1e-5)


class Typed(nn.Module):
    """Float32 weights, and one parameter of another type at the root or in a block."""

    dtype, is_in_block = torch.float32, False

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 8)
        holder = self.second if self.is_in_block else self
        holder.register_parameter("odd", nn.Parameter(torch.randn(8).to(self.dtype)))
        self.numbers = nn.Parameter(torch.arange(8), requires_grad=False)
        self.mask = nn.Parameter(torch.arange(8) > 3, requires_grad=False)
        self.fixed = nn.Parameter(torch.randn(8).to(torch.complex64), requires_grad=False)
        self.register_buffer("spectrum", torch.randn(8, dtype=torch.complex64))
        self.rows = nn.Embedding(4, 1, sparse=True)
        self.bags = nn.EmbeddingBag(4, 1, mode="sum", sparse=True)

    def forward(self, x):
        odd = (self.second if self.is_in_block else self).odd
        factors = (odd * self.fixed.detach() * self.spectrum).abs().float()
        known = self.rows(x[:, 0].abs().long().clamp(0, 3)) + self.bags((x > 0).long())
        x = self.second(self.first(x).relu()) * factors * (self.numbers * self.mask + 1) * 0.1
        return x.sum(1, keepdim=True) + known


class DoubleTyped(Typed):
    dtype = torch.float64


class BlockTyped(Typed):
    dtype, is_in_block = torch.bfloat16, True


TRAINED = {
    DoubleTyped: ["local", "ddp", "zero3-offload"],
    BlockTyped: ["local", "ddp", "zero1", "zero2", "zero2-offload", "zero3-offload"],
}
"""The engines of two processes, and local, that train each."""


@pytest.mark.parametrize("model_class", list(TRAINED))
def test_other_types_are_refused_with_the_engines_that_train_them(model_class):
    model, engines = with_dense_tensors(model_class), TRAINED[model_class]
    blocks = [model.first, model.second]
    name = "second.odd" if model.is_in_block else "odd"
    shown = ", ".join(engines).replace("local", "local with one process")
    for engine in ENGINES:
        if engine in engines:
            check_parameters(model, blocks, engine, 1 if engine == "local" else 2)
            continue
        with pytest.raises(EngineError, match=f"parameter '{name}'") as refused:
            check_parameters(model, blocks, engine, 2)
        assert str(refused.value).endswith(f"; engines that train it: {shown}")


@able("ddp", "oss", "fsdp", "zero2", "zero3")
def test_frozen_types_and_sparse_gradients_train_as_under_local(worlds, engine):
    plain = worlds[1].run(train, "local", Typed)
    assert_equal(worlds[2].run(train, engine, Typed), plain, TOLERANCE)


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: nn.Sequential(nn.LazyLinear(3)), "'0.weight' has no shape before the first batch"),
        (lambda: nn.LazyBatchNorm1d(affine=False), "'running_mean' has no shape"),
        (lambda: with_buffer(torch.eye(2).to_sparse()), "'shape' is a sparse tensor"),
    ],
)
def test_tensors_that_no_engine_takes_are_refused(build, message):
    with pytest.raises(EngineError, match=message):
        with_dense_tensors(build)


def with_buffer(tensor):
    model = nn.Linear(2, 1)
    model.register_buffer("shape", tensor)
    return model
