"""Machines, resolved settings and variables of torchrun used by the launcher's tests."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from gearshift.launcher.base.diagnostics import SettingsError
from gearshift.launcher.config.machine import Machine
from gearshift.launcher.config.provenance import CliArgs, Origin, Setting
from gearshift.launcher.config.resolve import resolve
from gearshift.launcher.config.schema import setting_infos
from gearshift.launcher.config.selection import stack

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"
LAPTOP = Machine(2, 8 * 2**30, 0, "cpu", cpu_bf16=False, gpu_bf16=False, compiler=True)
NEW_CPU = replace(LAPTOP, cores=8, ram_bytes=32 * 2**30, cpu_bf16=True)
SERVER = replace(NEW_CPU, cores=64, ram_bytes=512 * 2**30, gpus=4, device="cuda", gpu_bf16=True)
ONE_GPU = replace(SERVER, gpus=1)


def resolved(
    *sets,
    model="language:tiny",
    mode=None,
    engine=None,
    configs=None,
    machine=LAPTOP,
    world_size=None,
    **options,
):
    """Settings of the arguments; `options` are short options by name: lr="1e-3" is --lr 1e-3."""
    cli_args = CliArgs(
        model=model,
        mode=mode,
        engine=engine,
        configs=configs or [],
        sets=sets,
        options={SHORT[name]: (f"--{name.replace('_', '-')}", o) for name, o in options.items()},
    )
    return resolve(cli_args, machine, world_size)


def stacked(layers, family="language"):
    """The built-in values below `layers`, and the errors in them."""
    built_in = Origin("built-in", "built-in")
    values = {key: Setting(info.default, built_in) for key, info in setting_infos(family).items()}
    return values, stack(family, values, layers)


def errors_of(call, *args, **options):
    """The errors that end a call."""
    with pytest.raises(SettingsError) as error:
        call(*args, **options)
    return error.value.diagnostics


def refused(*sets, **options):
    """The errors of settings that do not resolve."""
    return errors_of(resolved, *sets, **options)


def python(*args, folder=None, prefix=(), **options):
    """A finished Python, which finds our packages first."""
    options["env"] = {**os.environ, "PYTHONPATH": str(SOURCE), **options.get("env", {})}
    command = [*prefix, sys.executable, *args]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, **options)


SHORT = {
    "lr": "optim.lr",
    "batch_size": "train.micro_batch",
    "nproc": "engine.nproc",
    "precision": "precision",
    "epochs": "train.epochs",
    "max_steps": "train.max_steps",
    "for": "train.time",
    "data": "data.path",
    "seq_len": "data.seq_len",
}


def set_torchrun(monkeypatch, rank, size=2):
    """Set the variables that torchrun gives to `rank` of `size` processes on one machine."""
    for start in ("", "LOCAL_"):
        monkeypatch.setenv(f"{start}RANK", str(rank))
        monkeypatch.setenv(f"{start}WORLD_SIZE", str(size))
    monkeypatch.setenv("MASTER_ADDR", "a")
    monkeypatch.setenv("MASTER_PORT", "1")
