"""Ranks that use different parameters in a step raise at that step, with names of parameters."""

import pytest
import torch
from torch import nn

from engines.base import EngineError, Options
from engines.catalog import build_engine, find
from engines.zero.config_file import shipped
from tests.engines.parity import spec
from tests.engines.pool import RankFailed

A, B, BOTH, NONE = "a", "b", "ab", ""


class Branches(nn.Module):
    """Experts that a batch chooses, and a layer that all use. `wide`: `b` has another shape."""

    def __init__(self, wide=False, adapters=False):
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.b = nn.Sequential(nn.Linear(4, 16), nn.Linear(16, 4)) if wide else nn.Linear(4, 4)
        self.out = nn.Linear(4, 2)
        if adapters:
            for layer in (self.a, self.b):
                layer.requires_grad_(False)
                layer.adapter = nn.Linear(4, 4, bias=False)

    def forward(self, x, used):
        for name in used:
            layer = getattr(self, name)
            x = layer(x) + (layer.adapter(x) if hasattr(layer, "adapter") else 0)
        return self.out(x)


class Block(nn.Module):
    """Branches within one block."""

    def __init__(self, inner=Branches):
        super().__init__()
        self.block, self.last = inner(), nn.Linear(2, 2)

    def forward(self, x, used):
        return self.last(self.block(x, used))


class Functional(Branches):
    """Uses weights without the forward pass of their modules."""

    def forward(self, x, used):
        for name in used:
            x = x @ getattr(self, name).weight
        return self.out(x)


def train(world, name, precision, steps, build=Branches, **options):
    """Losses of `steps`: for each step, for each rank, what its micro-batches use; or the error."""
    torch.manual_seed(0)
    net, config = build(**options), find(name).ds_config
    accumulation = len(steps[0][0])
    engine = build_engine(
        name,
        world,
        Options(precision=precision, ds_config=shipped(config) if config else {}, accumulation=accumulation),
    )
    module = engine.prepare(net, spec(clip_norm=None, lr=0.1), [*net.children()])
    norms = []
    try:
        for step, ranks in enumerate(steps):
            for micro_batch, used in enumerate(ranks[world.rank]):
                x = torch.ones(2, 4) + step + micro_batch
                with engine.accumulate(last=micro_batch == accumulation - 1):
                    engine.backward(module(x, used).square().mean())
            norms.append(float(engine.step().norm))
    except EngineError as error:
        return str(error)
    finally:
        engine.close()
    return norms


CASES = {
    "a branch by data": ("zero1", "fp32", [[[A], [B]]], {}),
    "another shape": ("fsdp", "fp32", [[[A], [B]]], {"wide": True}),
    "another shape, zero2": ("zero2", "bf16", [[[A], [B]]], {"wide": True}),
    "a rank that uses none": ("zero2-offload", "fp32", [[[A], [NONE]]], {}),
    "none, fsdp in 16 bits": ("fsdp", "bf16", [[[A], [NONE]]], {}),
    "the first micro-batch only": ("fsdp", "fp32", [[[A, BOTH], [B, BOTH]]], {}),
    "first only, zero": ("zero1", "bf16", [[[A, BOTH], [B, BOTH]]], {}),
    "another order": ("fsdp-offload", "fp32", [[["ab"], ["ba"]]], {}),
    "experts of a block": ("fsdp", "bf16", [[[A], [B]]], {"build": Block}),
    "experts, zero3": ("zero3", "fp32", [[[A], [B]]], {"build": Block}),
    "a rank that uses none, zero3": ("zero3-offload", "bf16", [[[A], [NONE]]], {}),
    "adapters": ("zero2", "fp32", [[[A], [B]]], {"adapters": True}),
    "no forward pass": ("zero2", "fp32", [[[A], [B]]], {"build": Functional}),
    "no forward pass, fsdp": ("fsdp", "fp32", [[[A], [B]]], {"build": Block, "inner": Functional}),
}


@pytest.mark.parametrize("case", CASES)
def test_each_rank_raises_with_a_parameter_both_ranks_and_an_engine(worlds, case):
    name, precision, steps, options = CASES[case]
    for error in worlds[2].run(_train, name, precision, steps, options):
        assert isinstance(error, str), error
        assert "rank 0" in error and "rank 1" in error and "weight" in error
        assert error.endswith("ddp")


def _train(world, name, precision, steps, options):
    return train(world, name, precision, steps, **options)


def train_or_fail(world, name, steps):
    result = train(world, name, "fp32", steps)
    if isinstance(result, str):
        raise EngineError(result)
    return result


@pytest.mark.parametrize("name", ["zero1", "zero3", "fsdp"])
def test_a_rank_that_leaves_what_all_used_before_raises_while_others_wait(worlds, name):
    """Rank 0 uses what it used before, and waits for rank 1 in a collective."""
    with pytest.raises(RankFailed, match=r"rank 0 uses a\.weight where rank 1 uses out\.weight"):
        worlds[2].run(train_or_fail, name, [[[A], [A]], [[A], [A]], [[A], [NONE]]])


EVEN = [[[A, B]] * 2, [[B, A]] * 2, [[BOTH, NONE]] * 2, [[NONE, B]] * 2]


@pytest.mark.parametrize("name", ["fsdp", "zero2", "zero3"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_ranks_may_use_other_parameters_in_each_step_and_micro_batch(worlds, name, precision):
    """Also modules that the first micro-batch does not use, or only that."""
    expected = worlds[2].run(_train, "local", precision, EVEN, {})[0]
    for norms in worlds[2].run(_train, name, precision, EVEN, {}):
        assert norms == pytest.approx(expected, rel=1e-5 if precision == "fp32" else 0.05)


UNEVEN = [[[BOTH], [BOTH]], [[A], [B]], [[A], [A]], [[NONE], [B]], [[BOTH], [BOTH]]]


@pytest.mark.parametrize("name", ["ddp", "oss"])
def test_engines_with_replicas_average_what_any_rank_used(worlds, name):
    """Also after a first step that used all: ddp waits for the gradients of all parameters."""
    expected = worlds[2].run(_train, "local", "fp32", UNEVEN, {})[0]
    for norms in worlds[2].run(_train, name, "fp32", UNEVEN, {}):
        assert norms == pytest.approx(expected, rel=1e-5)
