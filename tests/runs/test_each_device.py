"""Runs of every family on each device, what they plan, and the memory they find."""

import re

import pytest
import torch

from benchmarks import plan_error
from gearshift.launcher.config.machine import detect_machine
from gearshift.launcher.config.provenance import CliArgs
from gearshift.launcher.config.resolve import resolve
from gearshift.launcher.plan.plan import plan_run
from gearshift.launcher.plan.target import Described
from gearshift.launcher.run.prepare import memory_lack
from tests.devices import each_device
from tests.launcher.given import resolved
from tests.runs.conftest import result

UNITS = {"MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
CHOSEN = re.compile(r"engine auto: (\w[\w-]*): planned [\d.]+ \w+ of ([\d.]+) (\w+)")


def memory(device):
    """All of the memory that tensors can be in."""
    if device == "cuda":
        return torch.cuda.get_device_properties(0).total_memory
    return detect_machine().ram_bytes


WORKSPACE = 2**26
"""What cuBLAS takes of a GPU, at most."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("device", "model", "sets"),
    [
        ("cpu", "language:tiny", ("compile=off",)),
        *(
            pytest.param(
                "cuda", "language:124M", ("train.micro_batch=4", *sets), marks=pytest.mark.gpu
            )
            for sets in (
                ("compile=off",),
                ("compile=on",),
                ("compile=off", "memory.activation_checkpointing=full"),
            )
        ),
    ],
)
def test_a_plan_is_near_what_the_allocator_has_handed_out(program, device, model, sets):
    here = detect_machine()
    sets = [*sets, f"device={device}", "engine.nproc=1", "train.preview=false"]
    run = resolve(CliArgs(model=model, engine="local", sets=sets), here, 1)
    if device == "cpu":
        measured = plan_error.measured_peak(run, 1, "a test").tensors
        plan = plan_error.predicted(run, here)
    else:
        plan = plan_run(run, Described(here))
        given = [part for each in sets for part in ("--set", each)]
        short = ("--max-steps", "6", "--set", "save.every=null", "--set", "eval.every=null")
        done = program("--model", model, "--engine", "local", *given, *short, "--out", "run")
        assert done.returncode == 0, done.stderr
        measured = result(program.folder / "run")["peak_memory_bytes"]["device"]
    assert measured < plan.device_bytes * 1.05 + (WORKSPACE if device == "cuda" else 0)
    assert plan.is_compiled or measured > plan.device_bytes * 0.95


@pytest.mark.slow
@each_device
def test_engine_auto_knows_the_memory_of_the_device(program, device):
    done = program(
        "--set", f"device={device}", "--engine", "auto", "--dry-run", "--model", "language:tiny"
    )
    assert done.returncode == 0, done.stderr
    engine, number, unit = CHOSEN.search(done.stdout + done.stderr).groups()
    most = memory(device)
    assert most / 2 < float(number) * UNITS[unit] < most * 1.01
    assert engine == ("local" if detect_machine().gpus < 2 else "ddp")


@each_device
def test_more_state_than_memory_is_refused_by_arithmetic(device):
    here, most = detect_machine(), memory(device)
    run = resolved(f"device={device}", "engine.nproc=1", machine=here, engine="local")
    assert memory_lack(run, here, most // 64, 1) is None
    error = memory_lack(run, here, most // 8, 1)  # at least 16 bytes for each
    assert ("on a GPU" if device == "cuda" else "in main memory") in str(error)
