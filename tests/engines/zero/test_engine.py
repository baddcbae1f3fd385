"""The zero engines: state, threads and errors."""

import re
import subprocess
import sys

import pytest
import torch

from tests.engines.parity import Case
from tests.engines.pool import Pool
from tests.engines.zero import deepspeed_runs as runs

pytest.importorskip("deepspeed")

Worlds = dict[int, Pool]


@pytest.mark.parametrize("engine", ["zero1", "zero3"])
def test_weights_follow_the_fp32_pieces_after_a_refresh(worlds, engine):
    case = Case(engine, precision="bf16")
    for outputs, expected in worlds[2].run(runs.outputs_after_writing, case):
        # Rounded to bf16 at different points before sums of 3.
        torch.testing.assert_close(outputs, expected, rtol=0.0, atol=0.03)


def test_a_value_that_deepspeed_rejects_is_shown_with_its_message(worlds):
    (message,) = worlds[1].run(runs.rejection, Case("zero2"), {"reduce_bucket_size": "big"})
    assert re.fullmatch(
        r"deepspeed \S+ rejects its config: reduce_bucket_size: Input should be .*", message
    )


@pytest.mark.parametrize("engine", ["zero1", "zero3"])
def test_master_weights_that_differ_from_the_weights_are_refused_on_all_ranks(worlds, engine):
    for message in worlds[2].run(runs.check_after_moving_masters, Case(engine)):
        assert re.fullmatch(r"the fp32 copies of \d+ parameters differ from their weights", message)


def test_the_module_says_whether_it_trains(worlds):
    found = worlds[1].run(runs.training_flags, Case("zero2"))
    assert found == [[(False, False), (True, True)]]


def test_only_offloading_computes_with_the_given_threads(worlds):
    assert worlds[1].run(runs.threads, Case("zero2-offload"), 3) == [(1, 3, 1)]
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
def test_a_process_can_train_repeatedly_without_output(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n") == ["zero3-offload 2", "zero2 2", "zero3 2", ""]
    assert done.stderr == ""
