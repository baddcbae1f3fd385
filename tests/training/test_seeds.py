from __future__ import annotations

import os
import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from tests.training.ranks import dropout_masks
from tests.training.tiny import TinyTask, one_rank, run_tiny
from training import seeds

CPU = torch.device("cpu")


def test_every_purpose_and_number_has_a_seed_of_its_own():
    key_parts = [(0, "a"), (0, "b"), (1, "a"), (0, "a", 1), (0, "a", 1, 1), (0, "a", 11), (0, "a1")]
    found = [seeds.derive(*parts) for parts in key_parts]
    assert len(set(found)) == len(key_parts)
    assert all(0 <= seed < 2**63 for seed in found)


def test_a_seed_is_the_same_on_every_machine():
    # blake2b of "7:step:3:1", eight bytes little-endian without the lowest bit.
    assert seeds.derive(7, "step", 3, 1) == int(
        subprocess.run(
            [sys.executable, "-c", _BY_HASHLIB], capture_output=True, text=True, check=True
        ).stdout
    )


_BY_HASHLIB = (
    "import hashlib; d = hashlib.blake2b(b'7:step:3:1', digest_size=8).hexdigest(); "
    "print(int(''.join(reversed([d[i:i+2] for i in range(0, 16, 2)])), 16) // 2)"
)


@pytest.mark.parametrize("draw", [lambda: torch.rand(3).tolist(), random.random, np.random.rand])
def test_a_step_draws_the_same_whatever_was_drawn_before(draw):
    seeds.seed_step(1, 5, 0, CPU)
    first = draw()
    draw()
    seeds.seed_step(1, 5, 0, CPU)
    assert draw() == first
    seeds.seed_step(1, 6, 0, CPU)
    assert draw() != first


def test_ranks_and_steps_draw_differently(two_ranks):
    first, other = two_ranks.run(dropout_masks, 0, 0)
    again = two_ranks.run(dropout_masks, 0, 0)
    assert first != other
    assert [first, other] == again
    assert two_ranks.run(dropout_masks, 0, 1)[0] != first


def test_dropout_after_a_resume_is_that_of_the_unbroken_run():
    task = TinyTask(dropout=0.5)
    changes = {
        "train": {"epochs": 2},
        "save": {"every": 3},
        # Without momentum there are no slots to carry over.
        "optim": {"name": "sgd", "momentum": 0.0, "lr": 0.1},
    }
    whole = run_tiny(one_rank(), task, **changes)
    rest = run_tiny(one_rank(), task, before=whole.shelf.before(3), **changes)
    assert [s.step for s in rest.recorder.steps] == [4, 5, 6]
    for ours, theirs in zip(rest.recorder.steps, whole.recorder.steps[3:], strict=True):
        assert torch.equal(ours.loss, theirs.loss)
    for name, weight in whole.weights.items():
        assert torch.equal(rest.weights[name], weight)
    assert rest.recorder.lines[-1].units == whole.recorder.lines[-1].units


@pytest.fixture
def restored_flags():
    kept = os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    cudnn = torch.backends.cudnn
    flags = cudnn.deterministic, cudnn.benchmark
    yield
    torch.use_deterministic_algorithms(False)
    torch.autograd.set_detect_anomaly(False)
    cudnn.deterministic, cudnn.benchmark = flags
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
    if kept is not None:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = kept


@pytest.mark.usefixtures("restored_flags")
def test_only_deterministic_algorithms_are_left():
    seeds.make_deterministic(os.environ)
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.deterministic
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


@pytest.mark.usefixtures("restored_flags")
@pytest.mark.filterwarnings("ignore:Error detected")
def test_anomalies_name_the_forward_operation():
    seeds.detect_anomalies()
    zero = torch.zeros(1, requires_grad=True)
    with pytest.raises(RuntimeError, match="SqrtBackward0"):
        ((zero * 0).sqrt() * 0).sum().backward()
