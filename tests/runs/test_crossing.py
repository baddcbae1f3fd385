"""A run resumes under any engine and world size as if it had always trained there."""

import numpy as np
import pytest
import torch

from gearshift.engines.catalog import ENGINES
from tests.engines.test_parity import SHARDED, able, able_mark
from tests.runs.crossing import Crossings, differences, drift

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
def crossings(worlds, tmp_path_factory):
    """Shares each saved run between the cases."""
    return Crossings(worlds, tmp_path_factory.mktemp("runs"))


def cases(*quick, slow=()):
    """Source and its world size, target and its world size."""

    def case(source, before, target, after):
        marks = [able_mark(source), able_mark(target)]
        if (source, before, target, after) not in quick:
            marks.append(pytest.mark.slow)
        name = f"{source}-{before}-to-{target}-{after}"
        return pytest.param(source, before, target, after, id=name, marks=marks)

    return pytest.mark.parametrize(
        ("source", "before", "target", "after"), [case(*c) for c in dict.fromkeys([*quick, *slow])]
    )


def in_turn(*engines):
    """Each engine once before and once after a world that grows and shrinks by turns.

    The layout of a checkpoint is that of its engine and world size, whatever reads it, so not every
    pair of engines is needed.
    """
    followers = [*engines[1:], engines[0]]
    return [
        (name, 1 + turn % 2, follower, 2 - turn % 2)
        for turn, (name, follower) in enumerate(zip(engines, followers, strict=True))
    ]


CPU_ENGINES = [name for name in ENGINES if name != "fsdp-offload"]
"""On a CPU that one is fsdp."""
QUICK = (
    *(("local", 1, "fsdp", 2), ("ddp", 2, "oss", 1), ("oss", 1, "zero3", 2)),
    *(("fsdp", 2, "zero2-offload", 1), ("zero2-offload", 2, "local", 1), ("zero3", 1, "zero1", 2)),
)
"""A world that grows or shrinks, and every layout on each side."""


@cases(*QUICK, slow=in_turn(*CPU_ENGINES))
def test_another_engine_resumes_as_if_it_had_taken_all_steps(
    crossings, source, before, target, after
):
    run = crossings.source(source, before)
    crossed = crossings.cross(run, target, after)
    assert differences(run.saved, crossed.taken) == []
    assert drift(crossed.end, crossings.source(target, after).end) < FP32


@cases(slow=[("fsdp", 2, "zero1", 2), ("oss", 2, "zero2-offload", 1)])
def test_factors_of_parts_cross_and_change(crossings, source, before, target, after):
    run = crossings.source(source, before, factors=True)
    crossed = crossings.cross(run, target, after, factors=True)
    assert differences(run.saved, crossed.taken) == []
    reference = crossings.source("local", 1, factors=True)
    assert drift(crossed.end, reference.end) < FP32
    without = crossings.cross(run, target, after)
    assert differences(run.saved, without.taken) == ["groups"]
    assert drift(without.end, reference.end) > 100 * FP32


HALF_OF = {"ddp": "bf16", "fsdp": "fp16", "zero2-offload": "bf16", "zero3": "fp16"}
"""One engine of each layout; a test below crosses with both."""
AGAIN = ("fsdp", "zero3")


@pytest.mark.parametrize(
    ("engine", "size", "precision"),
    [
        pytest.param("local", 1, "fp32"),
        *(pytest.param(name, 2, "fp32", marks=able_mark(name)) for name in AGAIN),
        *(
            pytest.param(name, 2, precision, marks=[able_mark(name), pytest.mark.slow])
            for name, precision in [*dict.fromkeys(CPU_ENGINES, "fp32").items(), *HALF_OF.items()]
            if precision != "fp32" or name not in AGAIN
        ),
    ],
)
def test_the_same_engine_resumes_bit_by_bit(crossings, engine, size, precision):
    """Without a tolerance: losses, norms, and the whole state after the last step."""
    run = crossings.source(engine, size, precision)
    crossed = crossings.cross(run, engine, size, precision)
    assert differences(run.saved, crossed.taken) == []
    for end, uninterrupted in zip(crossed.end, run.end, strict=True):
        assert end.losses == uninterrupted.losses
        assert end.norms == uninterrupted.norms
        assert end.loss_scales == uninterrupted.loss_scales
    assert differences(run.end, crossed.end) == []


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@cases(slow=[("fsdp", 2, "zero1", 2), ("local", 1, "zero3", 2), ("zero3", 2, "oss", 1)])
def test_half_precision_crosses_with_its_state_to_the_bit(
    crossings, source, before, target, after, precision
):
    run = crossings.source(source, before, precision)
    crossed = crossings.cross(run, target, after, precision)
    assert differences(run.saved, crossed.taken) == []
    if source in SHARDED and target in SHARDED and precision == "bf16":
        # Frozen weights keep the fp32 values too, of which DeepSpeed has the rounded ones only.
        for kind, name, _, values, _ in (piece for rank in crossed.taken for piece in rank.pieces):
            if (kind, name) == ("weight", "frozen.weight"):
                rounded = torch.from_numpy(values).to(torch.bfloat16).float().numpy()
                assert not np.array_equal(values, rounded)
    # One state, one step: only the order of sums differs, and with it what is rounded to 16 bits.
    first = {kind: getattr(crossed.end[0], kind)[0] for kind in ("losses", "norms")}
    same = {kind: getattr(run.end[0], kind)[0] for kind in ("losses", "norms")}
    nearness = FP32 if before == after else HALF
    if (source in SHARDED) != (target in SHARDED):  # weights of 16 bits, or autocast over fp32
        nearness = OTHER_KIND
    assert first == pytest.approx(same, rel=nearness)
    assert drift(crossed.end, crossings.source(target, after, precision).end) < HALF
    assert crossed.end[0].loss_scales == run.end[0].loss_scales
    if precision == "fp16" and source == "fsdp":  # the scale that crosses is one that has changed
        assert run.saved[0].skipped == [False, False, False, True, False, False]
        assert run.saved[0].loss_scale == {"value": 2.0**15, "good_updates": 2.0}


@pytest.mark.slow
@pytest.mark.parametrize(("old", "new"), [("bf16", "fp16"), ("fp16", "fp32")])
@able("zero3")
def test_another_precision_restores_all_but_the_loss_scale(crossings, engine, old, new):
    run = crossings.source(engine, 2, old)
    crossed = crossings.cross(run, "zero1", 1, new)
    assert differences(run.saved, crossed.taken) == ["loss scale"]
    assert crossed.taken[0].loss_scale == (FRESH if new == "fp16" else {})
    assert crossed.end[0].losses == pytest.approx(run.end[0].losses, rel=1e-2)


def moment_cleared(engine):
    for piece in engine.state().pieces:
        if (piece.kind, piece.name) == ("exp_avg", "seven"):
            piece.data.zero_()


def last_bit_of_a_weight(engine):
    for piece in engine.state().pieces:
        if (piece.kind, piece.name, piece.start) == ("weight", "norm.bias", 0):
            piece.data[:1] = piece.data[:1].nextafter(torch.tensor(torch.inf))


def counts_of_one_step(engine):
    names = [name for group in engine.state().groups for name in group["names"]]
    engine.load(dict.fromkeys(names, 1.0), {})


def decay_lost(engine):
    for group in engine.groups:
        group["weight_decay"] = 0.0


def count_lost(engine):
    engine.state().buffers["blocks.1.calls"].zero_()


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (moment_cleared, "('exp_avg', 'seven')"),
        (counts_of_one_step, "steps"),
        (decay_lost, "groups"),
        (count_lost, "buffer blocks.1.calls"),
    ],
)
@able("zero2")
def test_state_lost_by_an_engine_is_detected(crossings, engine, damage, found):
    """The comparison of states used in all cases finds this and nothing else."""
    run = crossings.source("ddp", 2)
    crossed = crossings.cross(run, engine, 1, damage=damage)
    assert differences(run.saved, crossed.taken) == [found]


@able("ddp")
def test_the_last_bit_of_a_weight_is_detected(crossings, engine):
    """Under ddp: zero2 itself finds a weight that is not its copy."""
    run = crossings.source("ddp", 2)
    crossed = crossings.cross(run, engine, 1, damage=last_bit_of_a_weight)
    assert differences(run.saved, crossed.taken) == ["('weight', 'norm.bias')"]
