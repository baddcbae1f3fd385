"""A run resumes under any engine and world size as if it had always trained there."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engines.base import Engine
from engines.catalog import ENGINES
from tests.engines.pool import Pool
from tests.engines.test_parity import SHARDED, missing_backend
from tests.runs.crossing import Crossings, differences, drift

SIZES = ((1, 1), (2, 2), (1, 2), (2, 1))
# Both runs rounded differently before the crossing: at most 1.3e-7 apart in the 400 cases.
# The losses are near 3.6, where one unit in the last place of fp32 is 6.6e-8 of them.
FP32 = 1e-6
# Two runs of one engine whose weights differ by one unit in the last place of fp32 are 3e-4
# apart after five steps. Lost state is found by comparing states: a lost weight decay moves
# losses by 3e-5.
HALF = 1e-3
OTHER_KIND = 3e-3
"""Norms of one step with weights of 16 bits, and with autocast over fp32: at most 1.4e-3 apart."""
FRESH = {"value": 2.0**16, "good_updates": 0.0}


@pytest.fixture(scope="module")
def crossings(worlds: dict[int, Pool], tmp_path_factory: pytest.TempPathFactory) -> Crossings:
    """Shares each saved run between the cases."""
    return Crossings(worlds, tmp_path_factory.mktemp("runs"))


def cases(*wanted: tuple[str, int, str, int]) -> pytest.MarkDecorator:
    """Source and its world size, target and its world size."""

    def case(source: str, before: int, target: str, after: int):
        missing = missing_backend(source) or missing_backend(target)
        return pytest.param(
            source,
            before,
            target,
            after,
            id=f"{source}-{before}-to-{target}-{after}",
            marks=pytest.mark.skipif(bool(missing), reason=missing),
        )

    return pytest.mark.parametrize(
        ("source", "before", "target", "after"), [case(*w) for w in wanted]
    )


def in_turn(*engines: str) -> list[tuple[str, int, str, int]]:
    """Each engine once before and once after each change of the world size, with another one.

    The layout of a checkpoint is that of its engine and world size, whatever reads it, so not every
    pair of engines is needed.
    """
    count = len(engines)
    return [
        (name, a, engines[(index + 1 + turn % (count - 1)) % count], b)
        for turn, (a, b) in enumerate(SIZES)
        for index, name in enumerate(engines)
    ]


def sample() -> list[tuple[str, int, str, int]]:
    """Each engine once before and once after a world that grows or shrinks, in turn."""
    names = list(ENGINES)
    return [
        (name, before, names[(index + 3) % len(names)], after)
        for index, name in enumerate(names)
        for before, after in [SIZES[2 + index % 2]]
    ]


alone = pytest.mark.parametrize("size", [1, 2])


def resumes_equally(
    crossings: Crossings, source: str, before: int, target: str, after: int
) -> None:
    run = crossings.source(source, before)
    crossed = crossings.cross(run, target, after)
    assert differences(run.saved, crossed.taken) == []
    assert drift(crossed.end, crossings.source(target, after).end) < FP32


@cases(*sample())
def test_another_engine_resumes_as_if_it_had_taken_all_steps(
    crossings: Crossings, source: str, before: int, target: str, after: int
) -> None:
    resumes_equally(crossings, source, before, target, after)


@pytest.mark.slow
@cases(*in_turn(*(name for name in ENGINES if name != "fsdp-offload")))  # on a CPU it is fsdp
def test_every_engine_resumes_from_others_at_every_change_of_the_world_size(
    crossings: Crossings, source: str, before: int, target: str, after: int
) -> None:
    resumes_equally(crossings, source, before, target, after)


@cases(*((name, size, name, size) for name in ENGINES for size in (1, 2)))
def test_the_same_engine_resumes_bit_by_bit(
    crossings: Crossings, source: str, before: int, target: str, after: int
) -> None:
    resumes_bit_by_bit(crossings, source, before, "fp32")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@cases(*((name, 2, name, 2) for name in ENGINES))
def test_the_same_engine_resumes_bit_by_bit_in_half_precision(
    crossings: Crossings, source: str, before: int, target: str, after: int, precision: str
) -> None:
    resumes_bit_by_bit(crossings, source, before, precision)


def resumes_bit_by_bit(crossings: Crossings, engine: str, size: int, precision: str) -> None:
    """Without a tolerance: losses, norms, and the whole state after the last step."""
    run = crossings.source(engine, size, precision)
    crossed = crossings.cross(run, engine, size, precision)
    assert differences(run.saved, crossed.taken) == []
    for end, uninterrupted in zip(crossed.end, run.end, strict=True):
        assert end.losses == uninterrupted.losses
        assert end.norms == uninterrupted.norms
        assert end.loss_scales == uninterrupted.loss_scales
    assert differences(run.end, crossed.end) == []


def resumes_in_half_precision(
    crossings: Crossings, source: str, before: int, target: str, after: int, precision: str
) -> None:
    run = crossings.source(source, before, precision)
    crossed = crossings.cross(run, target, after, precision)
    assert differences(run.saved, crossed.taken) == []
    # One state, one step: only the order of sums differs, and with it what is rounded to 16 bits.
    first = {kind: getattr(crossed.end[0], kind)[0] for kind in ("losses", "norms")}
    same = {kind: getattr(run.end[0], kind)[0] for kind in ("losses", "norms")}
    nearness = FP32 if before == after else HALF
    if (source in SHARDED) != (target in SHARDED):  # weights of 16 bits, or autocast over fp32
        nearness = OTHER_KIND
    assert first == pytest.approx(same, rel=nearness)
    assert drift(crossed.end, crossings.source(target, after, precision).end) < HALF
    assert crossed.end[0].loss_scales == run.end[0].loss_scales


HALVES = (
    ("local", 1, "zero3", 2),
    ("zero3", 2, "oss", 1),
    ("oss", 1, "fsdp", 1),
    ("fsdp", 2, "zero1", 2),
    ("zero1", 2, "local", 1),
)


@pytest.mark.parametrize("precision", ["bf16", pytest.param("fp16", marks=pytest.mark.slow)])
@cases(*HALVES)
def test_half_precision_crosses_with_its_state_to_the_bit(
    crossings: Crossings, source: str, before: int, target: str, after: int, precision: str
) -> None:
    resumes_in_half_precision(crossings, source, before, target, after, precision)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@cases(*in_turn("local", "fsdp", "oss", "zero1", "zero3", "zero2-offload")[::2])
def test_half_precision_crosses_between_all_layouts(
    crossings: Crossings, source: str, before: int, target: str, after: int, precision: str
) -> None:
    resumes_in_half_precision(crossings, source, before, target, after, precision)


@pytest.mark.slow
@cases(("fsdp", 2, "zero1", 1), ("zero1", 1, "zero3", 2), ("zero3", 2, "fsdp", 2))
def test_bf16_weights_cross_with_the_fp32_values_behind_them(
    crossings: Crossings, source: str, before: int, target: str, after: int
) -> None:
    """Frozen weights too, of which DeepSpeed itself keeps the rounded values only."""
    resumes_in_half_precision(crossings, source, before, target, after, "bf16")
    taken = crossings.cross(crossings.source(source, before, "bf16"), target, after, "bf16").taken
    for rank in taken:
        for kind, name, _, values, _ in rank.pieces:
            if kind == "weight" and name == "frozen.weight":
                rounded = torch.from_numpy(values).to(torch.bfloat16).float().numpy()
                assert not np.array_equal(values, rounded)


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [("fp32", "bf16", []), ("bf16", "fp16", ["loss scale"]), ("fp16", "fp32", ["loss scale"])],
)
@cases(("zero3", 2, "zero1", 1))
def test_another_precision_restores_all_but_the_loss_scale(
    crossings: Crossings,
    source: str,
    before: int,
    target: str,
    after: int,
    old: str,
    new: str,
    changed: list[str],
) -> None:
    run = crossings.source(source, before, old)
    crossed = crossings.cross(run, target, after, new)
    assert differences(run.saved, crossed.taken) == changed
    assert crossed.taken[0].loss_scale == (FRESH if new == "fp16" else {})
    assert crossed.end[0].losses == pytest.approx(run.end[0].losses, rel=1e-2)


def test_the_loss_scale_that_crosses_is_one_that_has_changed(crossings: Crossings) -> None:
    saved = crossings.source("fsdp", 2, "fp16").saved[0]
    assert saved.skipped == [False, False, False, True, False, False]
    assert saved.loss_scale == {"value": 2.0**15, "good_updates": 2.0}
    assert set(saved.steps.values()) == {5.0}


def moment_cleared(engine: Engine) -> None:
    for piece in engine.state().pieces:
        if (piece.kind, piece.name) == ("exp_avg", "seven"):
            piece.data.zero_()


def last_bit_of_a_weight(engine: Engine) -> None:
    for piece in engine.state().pieces:
        if (piece.kind, piece.name, piece.start) == ("weight", "norm.bias", 0):
            piece.data[:1] = piece.data[:1].nextafter(torch.tensor(torch.inf))


def counts_of_one_step(engine: Engine) -> None:
    names = [name for group in engine.state().groups for name in group["names"]]
    engine.load(dict.fromkeys(names, 1.0), {})


def decay_lost(engine: Engine) -> None:
    for group in engine.groups:
        group["weight_decay"] = 0.0


def buffer_moved(engine: Engine) -> None:
    engine.state().buffers["level"].mul_(1.001)


def count_lost(engine: Engine) -> None:
    engine.state().buffers["blocks.1.calls"].zero_()


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (moment_cleared, "('exp_avg', 'seven')"),
        (last_bit_of_a_weight, "('weight', 'norm.bias')"),
        (counts_of_one_step, "steps"),
        (decay_lost, "groups"),
        (buffer_moved, "buffer level"),
        (count_lost, "buffer blocks.1.calls"),
    ],
)
@cases(("ddp", 2, "zero2", 1))
def test_state_lost_by_an_engine_is_detected(
    crossings: Crossings, source: str, before: int, target: str, after: int, damage, found: str
) -> None:
    """The comparison of states used in all cases finds this and nothing else."""
    run = crossings.source(source, before)
    crossed = crossings.cross(run, target, after, damage=damage)
    assert differences(run.saved, crossed.taken) == [found]
