import hashlib
import os
import random

import numpy as np
import pytest
import torch

from gearshift.training import seeds

CPU = torch.device("cpu")


def test_every_purpose_and_number_has_a_seed_of_its_own():
    key_parts = [(0, "a"), (0, "b"), (1, "a"), (0, "a", 1), (0, "a", 1, 1), (0, "a", 11), (0, "a1")]
    found = [seeds.derive(*parts) for parts in key_parts]
    assert len(set(found)) == len(key_parts)
    assert all(0 <= seed < 2**63 for seed in found)


def test_a_seed_is_the_same_on_every_machine():
    digest = hashlib.blake2b(b"7:step:3:1", digest_size=8).digest()
    assert seeds.derive(7, "step", 3, 1) == int.from_bytes(digest, "little") // 2


@pytest.mark.parametrize("draw", [lambda: torch.rand(3).tolist(), random.random, np.random.rand])
def test_a_step_draws_the_same_whatever_was_drawn_before(draw):
    seeds.seed_step(1, 5, 0, CPU)
    first = draw()
    draw()
    seeds.seed_step(1, 5, 0, CPU)
    assert draw() == first
    for step, rank in ((6, 0), (5, 1)):
        seeds.seed_step(1, step, rank, CPU)
        assert draw() != first


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
