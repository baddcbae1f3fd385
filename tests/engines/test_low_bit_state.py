"""AdamW with moments of 16 and 8 bits under each engine."""

import numpy as np
import pytest

from gearshift.engines.catalog import ENGINES
from gearshift.training.checkpoint.reader import open_checkpoint
from gearshift.training.checkpoint.restore import restore
from gearshift.training.optim.low_bit import MOMENTS
from tests.engines.parity import (
    Case,
    LowBitOfSmall,
    distance,
    joined,
    one_step,
    outcome,
    prepared,
    train,
)
from tests.engines.test_parity import SLOW, able
from tests.runs.crossing import differences, saved_halfway

STEPS, SAVED_AT = 6, 3
APART = {"bf16": 2e-3, "int8": 0.03}
"""Of losses, from those with moments in fp32."""


def begun(world, case, run):
    """The checkpoint of step SAVED_AT, the state in it, and that of step STEPS."""
    with prepared(world, case) as (engine, module):

        def steps(first, last):
            return [one_step(world, engine, module, case, step) for step in range(first, last + 1)]

        return saved_halfway(world, case.engine, engine, run, steps, SAVED_AT, STEPS)


def resumed(world, case, folder):
    """The state of the checkpoint in `folder`, and that after the steps to STEPS."""
    with prepared(world, case, seed=1) as (engine, module):
        restore(open_checkpoint(folder), engine)
        restored = outcome(engine, [])
        steps = range(SAVED_AT + 1, STEPS + 1)
        return restored, outcome(
            engine, [one_step(world, engine, module, case, step) for step in steps]
        )


@pytest.fixture(scope="module")
def reference(worlds):
    return worlds[1].run(train, Case("local", steps=STEPS))


@able(*ENGINES, slow={*ENGINES} - {"local", "fsdp", "zero3"})
def test_a_resumed_run_has_the_bits_of_one_that_runs_through(worlds, tmp_path, engine):
    """The states by turns."""
    case = Case(engine, state=("bf16", "int8")[list(ENGINES).index(engine) % 2])
    folders, saved, end = zip(*worlds[2].run(begun, case, tmp_path), strict=True)
    restored, again = zip(*worlds[2].run(resumed, case, folders[0]), strict=True)
    assert differences(saved, restored) == []
    assert differences(end, again) == []


@able("local", "fsdp", "zero1", "zero2", "zero3", slow={"local", "fsdp", "zero1"})
def test_moments_of_small_parameters_are_those_of_fp32(worlds, engine):
    """After one step, whose gradients do not depend on moments."""
    found = joined(worlds[2].run(train, Case(engine, state="int8", steps=1)))
    exact = joined(worlds[2].run(train, Case(engine, steps=1)))
    apart = {True: 0.0, False: 0.0}
    for (kind, name), values in exact.items():
        if kind in MOMENTS:
            is_small = values.size < LowBitOfSmall.least
            off = float(np.abs(found[kind, name] - values).max() / np.abs(values).max())
            apart[is_small] = max(apart[is_small], off)
    assert apart[True] < 1e-5 and apart[False] > 1e-3, apart


CROSSINGS = [
    *(("local", 1, "int8", "fsdp", 2, "fp32"), ("fsdp", 2, "fp32", "ddp", 2, "bf16")),
    *(("oss", 2, "bf16", "local", 1, "int8"), ("zero1", 2, "int8", "local", 1, "int8")),
    *(("local", 1, "int8", "zero3", 2, "bf16"), ("ddp", 2, "int8", "zero2", 2, "int8")),
]


@pytest.mark.parametrize(
    ("source", "before", "old", "target", "after", "new"),
    [*CROSSINGS[:2], *(pytest.param(*each, marks=SLOW) for each in CROSSINGS[2:])],
)
def test_another_engine_with_another_state_resumes(
    worlds, reference, tmp_path, source, before, old, target, after, new
):
    saved = worlds[before].run(begun, Case(source, state=old), tmp_path)
    found = worlds[after].run(resumed, Case(target, state=new), saved[0][0])
    kept = distance([rank for rank, _ in found], [rank for _, rank, _ in saved])
    assert kept["weight"] == 0 and kept["exp_avg"] < 0.02, kept
    if new == "fp32":
        assert kept["exp_avg"] == kept["exp_avg_sq"] == 0
    losses = found[0][1].losses
    np.testing.assert_allclose(losses, reference[0].losses[SAVED_AT:], rtol=APART["int8"])
