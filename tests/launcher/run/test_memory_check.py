"""A start whose weights, gradients and optimizer state alone do not fit is refused."""

from dataclasses import replace

import pytest

from gearshift.launcher.config import machine
from gearshift.launcher.config.machine import CONTEXT_BYTES, NCCL_BYTES
from gearshift.launcher.run.prepare import memory_lack
from tests.launcher.given import LAPTOP, SERVER, resolved

GIB = 2**30
FIXED = CONTEXT_BYTES + NCCL_BYTES
FULL = 16 * GIB
"""Weights, gradients and two moments of 2**30 parameters in fp32."""


def lacks(engine, gpu_bytes=None, *sets, ram=512 * GIB, parameters=GIB, here=SERVER):
    """The error of a run on four GPUs; None: it fits."""
    here = replace(here, gpu_bytes=gpu_bytes, ram_bytes=ram)
    sets = ("precision=fp32", *sets)
    run = resolved(*sets, machine=here, engine=engine, model="language:tiny")
    return memory_lack(run, here, parameters, run.nproc)


@pytest.mark.parametrize(
    ("engine", "least"), [("ddp", FULL), ("zero2", FULL / 4 + 3 * FULL / 16), ("zero3", FULL / 4)]
)
def test_what_a_gpu_holds_at_least_follows_from_the_placement(engine, least):
    assert lacks(engine, round(1.01 * least) + FIXED) is None
    assert lacks(engine, round(0.99 * least) + FIXED) is not None


def test_what_is_offloaded_counts_in_the_memory_of_the_host():
    assert lacks("fsdp-offload", GIB + FIXED) is None
    message = lacks("fsdp-offload", GIB + FIXED, ram=15 * GIB).message
    assert "16.0 GiB of 15.0 GiB in main memory (4 processes)" in message


def test_processes_on_a_cpu_share_its_memory():
    run = resolved(engine="ddp", nproc="2")
    assert memory_lack(run, replace(LAPTOP, ram_bytes=20 * GIB), GIB // 2, 2) is None
    two = memory_lack(run, replace(LAPTOP, ram_bytes=15 * GIB), GIB // 2, 2)
    assert "16.0 GiB of 15.0 GiB in main memory (2 processes)" in two.message
    assert two.fix == "--engine fsdp"


def test_a_refused_start_writes_nothing_and_force_starts_it(here, monkeypatch, said):
    monkeypatch.setattr(machine, "detect_machine", lambda: replace(LAPTOP, ram_bytes=2**20))
    words = ("--model", "language:tiny", "--max-steps", "1", "--out", "run")
    said(*words, code=2)
    said(*words, "--force", "--dry-run")
    assert not list(here.iterdir())


def test_too_little_memory_stands_beside_no_other_error(here, monkeypatch, said):
    monkeypatch.setattr(machine, "detect_machine", lambda: replace(LAPTOP, ram_bytes=2**20))
    words = ("--model", "language:tiny", "--json")
    for typed, key in (((), "engine.name"), (("--epohcs", "3"), None)):
        [error] = said(*words, *typed, code=2)["diagnostics"]
        assert error["key"] == key
