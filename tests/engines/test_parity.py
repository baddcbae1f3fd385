"""Every engine has the losses, norms and moments of plain PyTorch in one process."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engines.base import Precision
from engines.catalog import ENGINES, missing
from tests.engines.parity import ACCUMULATION, Case, Outcome, distance, train
from tests.engines.pool import Pool

Worlds = dict[int, Pool]

# 20 steps of Adam in fp32 move the states of two correct engines about 1e-6 apart.
TOLERANCE = 1e-5
SHARDED = ("fsdp", "fsdp-offload", "zero1", "zero2", "zero3", "zero2-offload", "zero3-offload")
"""In bf16 and fp16 these engines gather weights of 16 bits; others use autocast over fp32."""


def missing_backend(name: str) -> str:
    """The missing requirement of the engine `name` on a CPU; empty: none."""
    if name.startswith("fsdp") and not hasattr(torch.cpu.Stream, "record_event"):
        return "a torch whose fully_shard runs on a CPU"
    return ", ".join(missing(ENGINES[name]))


def able(*names: str) -> pytest.MarkDecorator:
    marks = {
        name: pytest.mark.skipif(bool(missing_backend(name)), reason=missing_backend(name))
        for name in names
    }
    return pytest.mark.parametrize("engine", [pytest.param(n, marks=marks[n]) for n in names])


all_engines = able(*ENGINES)
all_of_torch = able("local", "ddp", "fsdp", "oss")
both_sizes = pytest.mark.parametrize("size", [pytest.param(1, marks=pytest.mark.slow), 2])


@pytest.fixture(scope="module")
def reference(worlds: Worlds) -> list[Outcome]:
    return worlds[1].run(train, Case("local"))


@both_sizes
@all_engines
def test_losses_norms_and_moments_are_those_of_local_in_one_process(
    worlds: Worlds, reference: list[Outcome], engine: str, size: int
) -> None:
    outcomes = worlds[size].run(train, Case(engine))
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
        assert [(g["weight_decay"], g["names"]) for g in outcome.groups] == [
            (g["weight_decay"], g["names"]) for g in reference[0].groups
        ]
    assert {name for o in outcomes for name in o.steps} == reference[0].steps.keys()


@both_sizes
@all_engines
def test_without_clipping_the_gradients_are_those_of_local_in_one_process(
    worlds: Worlds, engine: str, size: int
) -> None:
    """Adam hides a wrong scale of gradients from the losses, and clipping from the moments."""
    plain = worlds[1].run(train, Case("local", steps=2, clip_norm=None))
    apart = distance(worlds[size].run(train, Case(engine, steps=2, clip_norm=None)), plain)
    assert max(apart.values()) < TOLERANCE, apart


def test_a_gradient_divided_by_the_micro_batches_changes_the_moments(worlds: Worlds) -> None:
    plain = worlds[1].run(train, Case("local", clip_norm=None))
    wrong = worlds[1].run(train, Case("local", clip_norm=None, gradient_error=1 / ACCUMULATION))
    apart = distance(wrong, plain)
    assert apart["loss"] < 1e-3  # too small for a comparison of losses only
    assert apart["exp_avg"] > 0.5 and apart["exp_avg_sq"] > 0.5


@both_sizes
@pytest.mark.parametrize(
    "precision", ["bf16", *(pytest.param(p, marks=pytest.mark.slow) for p in ("fp16", "fp8"))]
)
@all_engines
def test_16_bit_gradients_are_those_of_the_same_kind_of_engine(
    worlds: Worlds, engine: str, precision: Precision, size: int
) -> None:
    """Two steps at learning rate 0: curves drift apart by 1e-3, gradients at one point do not.

    They differ by the order in which fp32 sums over ranks and micro-batches are taken.
    """
    case = {"steps": 2, "lr": 0.0, "precision": precision, "clip_norm": None}
    same = worlds[size].run(train, Case("fsdp" if engine in SHARDED else "local", **case))
    apart = distance(worlds[size].run(train, Case(engine, **case)), same)
    assert apart["weight"] == 0.0 and apart["exp_avg"] < 1e-6, apart


@able("fsdp", "zero1", "zero3")
def test_bf16_gradients_of_sharded_weights_are_near_those_of_autocast(
    worlds: Worlds, engine: str
) -> None:
    """Both round to bf16, at different operations; fp32 is 0.014 from autocast here."""
    case = {"steps": 1, "lr": 0.0, "precision": "bf16", "clip_norm": None}
    plain = worlds[2].run(train, Case("local", **case))
    apart = distance(worlds[2].run(train, Case(engine, **case)), plain)
    assert apart["weight"] == 0.0  # the state is fp32
    assert 0.0 < apart["exp_avg"] < 0.03 and apart["loss"] < 1e-3, apart


@both_sizes
@all_engines
def test_fp16_skips_on_all_ranks_an_overflow_on_one(worlds: Worlds, engine: str, size: int) -> None:
    case = {"steps": 4, "lr": 0.0, "precision": "fp16", "overflow_at": 2}
    same = "fsdp" if engine in SHARDED else "local"
    plain = worlds[size].run(train, Case(same, **case))
    outcomes = worlds[size].run(train, Case(engine, **case))
    for outcome in outcomes:
        assert outcome.skipped == [False, True, False, False]
        assert outcome.loss_scales == [2.0**16, 2.0**16, 2.0**15, 2.0**15]
        assert set(outcome.steps.values()) == {3.0}
    apart = distance(outcomes, plain)
    assert max(apart.values()) < TOLERANCE, apart


def test_fp16_gradients_are_near_those_of_fp32(worlds: Worlds) -> None:
    case = {"steps": 2, "lr": 0.0, "clip_norm": None}
    plain = worlds[1].run(train, Case("local", **case))
    apart = distance(worlds[1].run(train, Case("local", precision="fp16", **case)), plain)
    assert 0.0 < apart["exp_avg"] < 0.02 and apart["norm"] < 1e-2, apart


@both_sizes
@all_engines
def test_activation_checkpointing_changes_no_number(worlds: Worlds, engine: str, size: int) -> None:
    plain = worlds[size].run(train, Case(engine, steps=3))
    outcomes = worlds[size].run(train, Case(engine, steps=3, activation_checkpointing=2))
    assert max(distance(outcomes, plain).values()) == 0.0
    for name, buffer in plain[0].buffers.items():
        assert (outcomes[0].buffers[name] == buffer).all(), name


@pytest.mark.slow
@both_sizes
@able("local", "ddp", "fsdp")
def test_compilation_changes_numbers_by_rounding_only(
    worlds: Worlds, engine: str, size: int
) -> None:
    case = {"steps": 3, "activation_checkpointing": 2}
    plain = worlds[size].run(train, Case(engine, **case))
    keeps = engine == "ddp"
    outcomes = worlds[size].run(train, Case(engine, **case, compile=True, keep_products=keeps))
    apart = distance(outcomes, plain)
    # The kernels of the compiler add in another order; Adam's first steps amplify that in weights.
    assert apart["exp_avg"] < 1e-5 and apart["exp_avg_sq"] < 1e-5 and apart["weight"] < 1e-3, apart


@pytest.mark.slow
@able("fsdp", "zero1", "zero3")
def test_bf16_loss_curves_of_sharded_weights_are_within_the_noise_of_two_seeds(
    worlds: Worlds, engine: str
) -> None:
    plain, other_seed, found = (
        np.array(worlds[2].run(train, Case(name, precision="bf16", seed=seed))[0].losses)
        for name, seed in (("local", 0), ("local", 1), (engine, 0))
    )
    assert np.abs(found - plain).max() < 0.1 * np.abs(other_seed - plain).max()
