"""Every engine has the losses, norms and moments of plain PyTorch in one process."""

import numpy as np
import pytest
import torch
from torch import nn

from gearshift.engines.catalog import ENGINES, missing
from tests.engines.parity import Case, around, distance, joined, spec, train

# Steps of Adam in fp32 move the states of two correct engines about 1e-6 apart.
TOLERANCE = 1e-5
SHARDED = ("fsdp", "fsdp-offload", "zero1", "zero2", "zero3", "zero2-offload", "zero3-offload")
"""In bf16 and fp16 these engines gather weights of 16 bits; others use autocast over fp32."""


def missing_backend(name):
    """The missing requirement of the engine `name` on a CPU; empty: none."""
    return ", ".join(missing(ENGINES[name]))


def able_mark(name):
    """Skips where the engine `name` cannot run."""
    return pytest.mark.skipif(bool(missing_backend(name)), reason=missing_backend(name))


def able(*names, slow=()):
    """A case for each engine; those of `slow` are not among the fast tests."""
    marks = {name: [able_mark(name), *[SLOW] * (name in slow)] for name in names}
    return pytest.mark.parametrize("engine", [pytest.param(n, marks=marks[n]) for n in names])


SLOW = pytest.mark.slow


all_engines = able(*ENGINES)
# The norms of the first steps are above it, and those of the last ones below.
CLIPPING = {"steps": 10, "clip_norm": 0.85}
WITH_FACTORS = {"steps": 10, "clip_norm": 1.0, "factors": True}
ONE_POINT = {"steps": 2, "lr": 0.0, "clip_norm": None}
"""Curves of 16 bits drift apart by 1e-3, gradients at one point do not."""


@pytest.fixture(scope="module")
def trained(worlds):
    """The outcomes of a run of an engine with so many ranks; each is taken once."""
    taken = {}

    def run(size, engine, **changes):
        case = Case(engine, **changes)
        key = f"{size} {case}"
        if key not in taken:
            taken[key] = worlds[size].run(train, case)
        return taken[key]

    return run


def same_kind(engine):
    """The engine whose numbers of 16 bits those of `engine` equal."""
    return "fsdp" if engine in SHARDED else "local"


@pytest.mark.parametrize(
    ("size", "case"),
    [
        pytest.param(2, CLIPPING, id="2-one-rate", marks=SLOW),
        pytest.param(2, WITH_FACTORS, id="2-factors"),
        pytest.param(1, WITH_FACTORS, id="1-factors", marks=SLOW),
    ],
)
@all_engines
def test_losses_norms_and_moments_are_those_of_local_in_one_process(trained, engine, size, case):
    """With and without clipping, which hides a wrong scale of gradients from the moments."""
    outcomes, reference = trained(size, engine, **case), trained(1, "local", **case)
    assert min(reference[0].norms) < case["clip_norm"] < max(reference[0].norms)
    apart = distance(outcomes, reference)
    assert apart.keys() == {"loss", "norm", "weight", "exp_avg", "exp_avg_sq"}
    assert max(apart.values()) < TOLERANCE, apart
    for outcome in outcomes:
        assert outcome.losses == outcomes[0].losses
        assert outcome.norms == outcomes[0].norms
        assert outcome.without_gradient == []
        for name, buffer in reference[0].buffers.items():
            assert (outcome.buffers[name] == buffer).all()
        for name, steps in outcome.steps.items():
            assert steps == reference[0].steps[name]
        of_group = ("weight_decay", "names", "lr")
        assert [[g[k] for k in of_group] for g in outcome.groups] == [
            [g[k] for k in of_group] for g in reference[0].groups
        ]
    assert {name for o in outcomes for name in o.steps} == reference[0].steps.keys()


def test_a_factor_moves_the_weights_of_its_part_by_as_much(trained):
    """A first step of Adam has the size of the learning rate."""
    start, plain, apart = (
        joined(trained(1, "local", **(ONE_POINT | {"steps": 1} | changes)))
        for changes in ({}, {"lr": 1e-3}, {"lr": 1e-3, "factors": True})
    )
    factors = {"embedding.weight": 0.5 * 0.4**4, "blocks.0.out.bias": 0.4**3, "seven": 1.0}
    factors |= {"blocks.2.out.bias": 0.4, "norm.bias": 3.0}
    for name, factor in factors.items():
        at = start["weight", name]
        moved, by = plain["weight", name] - at, apart["weight", name] - at
        assert np.abs(by - factor * moved).max() < 1e-3 * factor * np.abs(moved).max() + 1e-7, name


@pytest.mark.parametrize("engine", ["ddp", "oss"])
def test_adafactor_has_the_state_of_one_process(trained, engine):
    found, plain = (trained(n, e, steps=3, adafactor=True) for n, e in ((2, engine), (1, "local")))
    apart = distance(found, plain)
    assert apart.keys() == {"loss", "norm", "weight", "row_var", "col_var", "variance"}
    assert max(apart.values()) < 1e-4, apart


class Tied(nn.Sequential):
    """Two layers that share a weight, and one that shares none."""

    def __init__(self):
        super().__init__(*(nn.Linear(3, 3) for _ in range(3)))
        self[2].weight = self[0].weight


class OneWeight(nn.Sequential):
    """A parameter, which only one of two ranks owns."""

    def __init__(self):
        super().__init__(nn.Linear(3, 1, bias=False))


def outputs_of(world, engine_name, kind):
    """The outputs of three steps."""
    torch.manual_seed(0)
    model, outputs = kind(), []
    with around(world, engine_name, model, spec(clip_norm=None, lr=0.1), model) as (engine, module):
        for step in range(3):
            with engine.accumulate(last=True):
                output = module(torch.full((1, 3), step + 1.0))
                engine.backward(output.square().sum())
            outputs += output.flatten().tolist()
            engine.step()
    return outputs


@pytest.mark.parametrize(
    ("name", "kind"), [pytest.param("fsdp", Tied, marks=able_mark("fsdp")), ("oss", OneWeight)]
)
def test_few_parameters_train_as_under_local(worlds, name, kind):
    (plain,) = worlds[1].run(outputs_of, "local", kind)
    assert worlds[2].run(outputs_of, name, kind) == [pytest.approx(plain, rel=1e-5)] * 2


IN_16_BITS = [pytest.param(name, "bf16", marks=able_mark(name)) for name in ENGINES]
# 8 bits change the layers of a model, so they need one engine of each kind.
IN_16_BITS += [
    pytest.param(name, "fp8", marks=[able_mark(name), SLOW]) for name in ("ddp", "fsdp", "zero3")
]


@pytest.mark.parametrize(("engine", "precision"), IN_16_BITS)
def test_16_bit_gradients_are_those_of_the_same_kind_of_engine(trained, engine, precision):
    """They differ by the order in which fp32 sums over ranks and micro-batches are taken.

    Those of fp16 are compared where one of their steps is skipped.
    """
    same = trained(2, same_kind(engine), precision=precision, **ONE_POINT)
    apart = distance(trained(2, engine, precision=precision, **ONE_POINT), same)
    assert apart["weight"] == 0.0 and apart["exp_avg"] < 1e-6, apart


@able("fsdp")
def test_bf16_gradients_of_sharded_weights_are_near_those_of_autocast(trained, engine):
    """Both round to bf16, at different operations; fp32 is 0.014 from autocast here."""
    sharded, plain = (trained(2, e, precision="bf16", **ONE_POINT) for e in (engine, "local"))
    apart = distance(sharded, plain)
    assert apart["weight"] == 0.0  # the state is fp32
    assert 0.0 < apart["exp_avg"] < 0.03 and apart["loss"] < 1e-3, apart


@all_engines
def test_fp16_skips_on_all_ranks_an_overflow_on_one(trained, engine):
    case = {"steps": 4, "lr": 0.0, "precision": "fp16", "overflow_at": 2}
    outcomes = trained(2, engine, **case)
    for outcome in outcomes:
        assert outcome.skipped == [False, True, False, False]
        assert outcome.loss_scales == [2.0**16, 2.0**16, 2.0**15, 2.0**15]
        assert set(outcome.steps.values()) == {3.0}
    apart = distance(outcomes, trained(2, same_kind(engine), **case))
    assert max(apart.values()) < TOLERANCE, apart


def test_fp16_gradients_are_near_those_of_fp32(trained):
    plain = trained(1, "local", **ONE_POINT)
    apart = distance(trained(1, "local", precision="fp16", **ONE_POINT), plain)
    assert 0.0 < apart["exp_avg"] < 0.02 and apart["norm"] < 1e-2, apart


@able("local", "fsdp", "zero2", "zero3", slow=("zero2", "zero3"))
def test_activation_checkpointing_changes_no_number(trained, engine):
    plain = trained(2, engine, steps=3)
    outcomes = trained(2, engine, steps=3, activation_checkpointing=2)
    assert max(distance(outcomes, plain).values()) == 0.0
    for name, buffer in plain[0].buffers.items():
        assert (outcomes[0].buffers[name] == buffer).all(), name


@SLOW
@able("ddp", "fsdp", "zero3")
def test_compilation_changes_numbers_by_rounding_only(trained, engine):
    case = {"steps": 3, "activation_checkpointing": 0 if engine.startswith("zero") else 2}
    compiled = trained(2, engine, **case, compile=True, keep_products=engine == "ddp")
    apart = distance(compiled, trained(2, engine, **case))
    # The kernels of the compiler add in another order; Adam's first steps amplify that in weights.
    assert apart["exp_avg"] < 1e-5 and apart["exp_avg_sq"] < 1e-5 and apart["weight"] < 1e-3, apart
