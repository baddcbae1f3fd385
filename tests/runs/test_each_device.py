"""Runs of every family on each device, what they plan, and the memory they find."""

import re
from dataclasses import dataclass

import pytest
import torch

import launcher
from benchmarks import lora, plan_error
from launcher.config.machine import detect_machine
from launcher.config.provenance import CliArgs
from launcher.config.resolve import resolve
from launcher.plan.plan import plan_run
from launcher.plan.target import Described
from launcher.run.prepare import check_memory
from models.catalog import FAMILIES
from tests.devices import each_device
from tests.launcher.given import resolved
from tests.runs.conftest import result

UNITS = {"MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
CHOSEN = re.compile(r"engine auto: (\w[\w-]*): planned [\d.]+ \w+ of ([\d.]+) (\w+)")
NOTHING_ELSE = {"eval.every": None, "save.every": None, "save.last": False, "train.preview": False}


def memory(device):
    """All of the memory that tensors can be in."""
    if device == "cuda":
        return torch.cuda.get_device_properties(0).total_memory
    return detect_machine().ram_bytes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "device"),
    # test_deterministic_steps.py: the operators of every family.
    [("event_seg", "cpu"), *(pytest.param(family, "cuda", marks=pytest.mark.gpu) for family in FAMILIES)],
)
def test_a_deterministic_run_of_a_family_can_be_repeated_and_others_run(tmp_path, device, family):
    def losses(name, *, is_deterministic):
        settings = {"device": device, "train.deterministic": is_deterministic, "log.every": 1}
        settings |= NOTHING_ELSE | {"train.max_steps": 2, "eval.last": False}
        run = launcher.train(f"{family}:tiny", settings=settings, out=tmp_path / name, console=False)
        return [(line["loss"], line["grad_norm"]) for line in run.metrics("train")]

    first, second = (losses(name, is_deterministic=True) for name in ("first", "second"))
    assert len(first) == 2 and first == second
    assert losses("third", is_deterministic=False)[0] == pytest.approx(first[0], rel=0.05)


@dataclass(frozen=True)
class Peaks:
    """Of one run, in bytes of tensors."""

    planned: int
    measured: int
    is_upper_bound: bool


def peaks(program, device, *sets, model):
    """The planned and the measured peak of a few steps."""
    here = detect_machine()
    sets = [*sets, f"device={device}", "engine.nproc=1", "train.preview=false"]
    run = resolve(CliArgs(model=model, engine="local", sets=sets), here, 1)
    if device == "cpu":
        found = plan_error.measured_peak(run, 1, "a test")
        plan, measured = plan_error.predicted(run, here), found.tensors
    else:
        plan = plan_run(run, Described(here))
        given = [part for each in sets for part in ("--set", each)]
        short = ("--max-steps", "6", "--set", "save.every=null", "--set", "eval.every=null")
        done = program("--model", model, "--engine", "local", *given, *short, "--out", "run")
        assert done.returncode == 0, done.stderr
        measured = result(program.folder / "run")["peak_memory_bytes"]["device"]
    return Peaks(plan.device_bytes, measured, plan.is_compiled)


WORKSPACE = 2**26
"""What cuBLAS takes of a GPU, at most."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("device", "model", "sets"),
    [
        ("cpu", "language:tiny", ("compile=off",)),
        *(
            pytest.param("cuda", "language:124M", ("train.micro_batch=4", *sets), marks=pytest.mark.gpu)
            for sets in (
                ("compile=off",),
                ("compile=on",),
                ("compile=off", "memory.activation_checkpointing=full"),
            )
        ),
    ],
)
def test_a_plan_is_near_what_the_allocator_has_handed_out(program, device, model, sets):
    found = peaks(program, device, *sets, model=model)
    most = found.planned * 1.05 + (WORKSPACE if device == "cuda" else 0)
    assert found.measured < most, found
    assert found.is_upper_bound or found.measured > found.planned * 0.95, found


@pytest.mark.slow
@each_device
def test_adapters_need_two_bytes_for_a_frozen_weight(program, device):
    """All weights need 16 bytes each: weight, gradient and two moments in fp32."""
    lora.save_model(program.folder / "base", 512, 12)
    sets = (f"model.pretrained={program.folder / 'base'}", "data.path=embedded:commands")
    sets += ("precision=bf16", "data.seq_len=64", "train.micro_batch=1", "train.global_batch=1")
    whole, adapters = (
        peaks(program, device, *sets, *more, "compile=off", model="language").measured
        for more in ((), ("model.lora.rank=8",))
    )
    assert adapters < 0.3 * whole


@each_device
def test_engine_auto_knows_the_memory_of_the_device(program, device):
    done = program("--set", f"device={device}", "--engine", "auto", "--dry-run", "--model", "language:tiny")
    assert done.returncode == 0, done.stderr
    engine, number, unit = CHOSEN.search(done.stdout + done.stderr).groups()
    most = memory(device)
    assert most / 2 < float(number) * UNITS[unit] < most * 1.01
    assert engine == ("local" if detect_machine().gpus < 2 else "ddp")


@each_device
def test_more_state_than_memory_is_refused_by_arithmetic(device):
    here, most = detect_machine(), memory(device)
    run = resolved(f"device={device}", "engine.nproc=1", machine=here, engine="local")
    assert not [*check_memory(run, here, most // 64, 1)]
    (error,) = check_memory(run, here, most // 8, 1)  # at least 16 bytes for each
    assert ("on a GPU" if device == "cuda" else "in main memory") in str(error)
