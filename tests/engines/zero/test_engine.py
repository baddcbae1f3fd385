"""The zero engines: state, discarded gradients, threads and errors."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import torch

from engines.base import Precision
from tests.engines.parity import Case, distance, train
from tests.engines.pool import Pool
from tests.engines.zero import deepspeed_runs as runs

pytest.importorskip("deepspeed")

Worlds = dict[int, Pool]
ENGINES = ["zero1", "zero2", "zero3", "zero2-offload", "zero3-offload"]
all_engines = pytest.mark.parametrize("engine", ENGINES)
both_sizes = pytest.mark.parametrize("size", [pytest.param(1, marks=pytest.mark.slow), 2])


@both_sizes
@all_engines
def test_weights_written_into_the_pieces_compute_after_a_refresh(
    worlds: Worlds, engine: str, size: int
) -> None:
    for outputs, expected in worlds[size].run(runs.outputs_after_writing, Case(engine)):
        torch.testing.assert_close(outputs, expected)


@all_engines
def test_bf16_weights_follow_the_fp32_pieces(worlds: Worlds, engine: str) -> None:
    case = Case(engine, precision="bf16")
    for outputs, expected in worlds[2].run(runs.outputs_after_writing, case):
        # Rounded to bf16 at different points before sums of 3.
        torch.testing.assert_close(outputs, expected, rtol=0.0, atol=0.03)


@all_engines
def test_moments_written_into_the_pieces_are_used_by_the_next_step(
    worlds: Worlds, engine: str
) -> None:
    for rank in worlds[2].run(runs.moments_after_writing, Case(engine)):
        assert rank
        for name, after, written in rank:
            # beta1, where the gradient is zero.
            torch.testing.assert_close(after, 0.9 * written, msg=lambda m, name=name: name + m)


@pytest.mark.slow
@pytest.mark.parametrize("passes", [1, 2], ids=["before the last pass", "after the last pass"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@all_engines
def test_discarded_gradients_leave_no_trace(
    worlds: Worlds, engine: str, precision: Precision, passes: int
) -> None:
    case = Case(engine, precision=precision)
    plain = worlds[2].run(runs.step_after_discarding, case, 0)
    discarded = worlds[2].run(runs.step_after_discarding, case, passes)
    for (taken, pieces), (taken_after, pieces_after) in zip(plain, discarded, strict=True):
        assert taken == taken_after
        assert all(torch.equal(*pair) for pair in zip(pieces, pieces_after, strict=True))


@pytest.mark.parametrize(
    "windows",
    [
        [[True], [False], [True], [False]],
        [[True, True], [False, False], [True, True]],
        [[True, True], [True, False], [True, False]],
        [[False, True], [True, False], [False, True]],
    ],
    ids=["alternate steps", "a step without", "not in the last pass", "now here, now there"],
)
@pytest.mark.parametrize(("precision", "nearness"), [("fp32", 1e-5), ("bf16", 0.02)])
@all_engines
def test_an_unused_layer_gets_no_gradient_of_an_earlier_step(
    worlds: Worlds,
    engine: str,
    precision: Precision,
    nearness: float,
    windows: list[list[bool]],
) -> None:
    (plain, _), _ = worlds[2].run(runs.fork, "local", windows)
    for norms, without in worlds[2].run(runs.fork, engine, windows, precision):
        assert norms == pytest.approx(plain, rel=nearness)
        assert without == []


@all_engines
def test_parameters_without_gradient_are_named_after_the_first_step(
    worlds: Worlds, engine: str
) -> None:
    for _, without in worlds[2].run(runs.fork, engine, [[False], [True]]):
        assert sorted(without) == ["sometimes.bias", "sometimes.weight"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "zero"),
    [
        ("zero1", {"overlap_comm": False, "parameter_alignment": True}),
        ("zero2", {"overlap_comm": False, "reduce_bucket_size": 100}),
        ("zero2", {"contiguous_gradients": False}),
        ("zero2-offload", {"reduce_bucket_size": 100, "overlap_comm": False}),
        ("zero3", {"stage3_param_persistence_threshold": 0, "sub_group_size": 1000}),
        ("zero3", {"memory_efficient_linear": True, "reduce_bucket_size": 100}),
        ("zero3-offload", {"offload_param": {"device": "none"}, "sub_group_size": 1000}),
    ],
)
def test_a_custom_partitioning_takes_the_same_steps(
    worlds: Worlds, engine: str, zero: dict
) -> None:
    (plain, _) = worlds[2].run(train, Case("local", steps=3))
    for taken in worlds[2].run(runs.three_steps, Case(engine), zero):
        losses, norms = zip(*taken, strict=True)
        assert losses == pytest.approx(plain.losses, rel=1e-5)
        assert norms == pytest.approx(plain.norms, rel=1e-5)


def test_a_value_that_deepspeed_rejects_is_shown_with_its_message(worlds: Worlds) -> None:
    (message,) = worlds[1].run(runs.rejection, Case("zero2"), {"reduce_bucket_size": "big"})
    assert re.fullmatch(
        r"deepspeed \S+ rejects its config: reduce_bucket_size: Input should be .*", message
    )


@both_sizes
@all_engines
def test_master_weights_that_differ_from_the_weights_are_refused_on_all_ranks(
    worlds: Worlds, engine: str, size: int
) -> None:
    for message in worlds[size].run(runs.check_after_moving_masters, Case(engine)):
        assert re.fullmatch(r"the fp32 copies of \d+ parameters differ from their weights", message)


def test_the_module_says_whether_it_trains(worlds: Worlds) -> None:
    found = worlds[1].run(runs.training_flags, Case("zero2"))
    assert found == [[(False, False), (True, True)]]


def test_offloading_computes_with_the_given_threads(worlds: Worlds) -> None:
    found = worlds[1].run(runs.threads, Case("zero2-offload"), 3)
    assert found == [(1, 3, 1)]


def test_engines_without_offload_leave_the_threads_alone(worlds: Worlds) -> None:
    assert worlds[1].run(runs.threads, Case("zero2"), 3) == [(1, 1, 1)]


SCRIPT = """
import os, torch
from engines.world import open_world
from engines.base import Precision
from tests.engines.parity import Case, train
torch.set_num_threads(1)
linear, environment = torch.nn.functional.linear, os.environ.get("LOCAL_RANK")
for name in ("zero3-offload", "zero2", "zero3"):
    world = open_world("cpu", 60.0, always_group=True)
    outcome = train(world, Case(name, steps=2))
    world.close()
    print(name, len(outcome.losses))
assert torch.nn.functional.linear is linear and os.environ.get("LOCAL_RANK") == environment
"""


@pytest.mark.slow
def test_a_process_can_train_repeatedly_without_output(tmp_path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n") == ["zero3-offload 2", "zero2 2", "zero3 2", ""]
    assert done.stderr == ""


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["zero1", "zero2-offload", "zero3"])
def test_compilation_changes_numbers_by_rounding_only(worlds: Worlds, engine: str) -> None:
    plain = worlds[2].run(train, Case(engine, steps=3))
    compiled = worlds[2].run(train, Case(engine, steps=3, compile=True))
    assert distance(compiled, plain)["exp_avg"] < 1e-5
