"""The command `doctor`: what this machine can run, and what to fix."""

from __future__ import annotations

import json
import platform
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import psutil
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from gearshift.engines.catalog import ENGINES
from gearshift.launcher.base import disk, environment, exit_codes
from gearshift.launcher.base.diagnostics import PROGRAM, SettingsError
from gearshift.launcher.base.redaction import redact
from gearshift.launcher.commands import list as catalogs
from gearshift.launcher.config.command_line import CommandLine
from gearshift.launcher.config.machine import Machine, amd_gpus, detect_machine, nvidia_gpus
from gearshift.launcher.config.schema import AUTO
from gearshift.slurm import sbatch
from gearshift.training.logging.encoding import printable, size
from gearshift.training.resources import memory

MIB = 2**20
GIB = 2**30
SLURM = ("sbatch", "scancel", "scontrol", "sinfo", "srun")
"""Commands that submitting and running a job needs."""
_OF_ENGINES = sorted({package for engine in ENGINES.values() for package in engine.needs})
_CHECKED_ALONE = ("torch", "wandb", *_OF_ENGINES)
_OWN = "gearshift"
_TORCH = "install torch for your GPU: https://pytorch.org/get-started/locally"
_COMPILER = "install g++ or clang++ with its headers, on macOS  xcode-select --install ; or set CXX"


class Check(NamedTuple):
    """What a check found."""

    name: str
    status: str
    """ok, warning (something does not work or is slow) or failure (training fails)."""
    found: str
    fix: str | None = None
    """What to type."""
    hint: str | None = None
    """What to do where no command does it."""


def main(command_line: CommandLine) -> int:
    """Print checks and engines; the exit code is 1 after a failure. Raises SettingsError.

    Uses no network but what Slurm's commands use.
    """
    is_json = command_line.as_json
    checks = []
    environment.limit_spinning()  # before torch is imported
    for check in _checks():
        checks.append(check)
        if not is_json:  # at once: some take seconds
            line = f"{check.status:<8} {check.name:<13} {check.found}"
            for label, text in (("fix", check.fix), ("hint", check.hint)):
                if text is not None:
                    line += f"\n{'':<23}{label}: {text}"
            print(printable(redact(line)), flush=True)

    failing = {check.name: check.found for check in checks if check.status != "ok"}
    # An engine whose package is installed in a wrong version cannot run either.
    engines = {row["name"]: row for row in catalogs.engines() if row["name"] != AUTO}
    for row in engines.values():
        reasons = [failing[name] for name in ("torch", *row["needs"]) if name in failing]
        if reasons:
            row |= {"runs_here": False, "why_not": "; ".join(reasons)}
    if is_json:
        rows = []
        for check in checks:
            rows.append({**check._asdict(), "fix": check.fix and shlex.split(check.fix)})
        print(json.dumps({"checks": rows, "engines": engines}, indent=2))
    else:
        print("\nengines:")
        for name, row in engines.items():
            can = "runs here" if row["runs_here"] else f"cannot run here: {row['why_not']}"
            print(printable(f"{name:<14}{can}"))
        print(f"\nwhat fits:  {PROGRAM} plan --model FAMILY:SIZE --engine {AUTO}")
    if "failure" in [check.status for check in checks]:
        return exit_codes.FAILURE
    return exit_codes.DONE


def _checks() -> Iterator[Check]:
    here = detect_machine()
    # First what needs no torch, whose import takes seconds and may fail.
    yield check_python(platform.python_version())
    others = [name for name in _required() if name not in _CHECKED_ALONE]
    yield check_packages("packages", *others, status="failure")
    if here.compiler:
        yield Check("compiler", "ok", "a C++ compiler")
    else:
        yield Check("compiler", "warning", "no C++ compiler on PATH", hint=_COMPILER)
    yield check_memory(here)
    # Containers have 64 MiB by default, which one large batch of the loader workers fills.
    hint = "docker run --shm-size=8g  or  mount -o remount,size=8G /dev/shm  or  --num-workers 0"
    if sys.platform == "linux":
        yield check_disk("/dev/shm", Path("/dev/shm"), 512 * MIB, 0, hint)
    # About ten checkpoints of 124M parameters with optimizer state, and of 4M.
    hint = "delete what you do not need, or change to a folder of yours on another disk"
    yield check_disk("disk space", Path.cwd(), 5 * GIB, 200 * MIB, hint)
    yield check_slurm()
    yield check_packages("wandb", "wandb")
    torch_check = check_torch()
    yield torch_check
    if torch_check.status == "failure":
        return
    import torch

    names: Sequence[str] = ()
    accelerator = torch.accelerator.current_accelerator()
    if accelerator and torch.accelerator.is_available():
        module = torch.get_device_module(accelerator)
        name_of = getattr(module, "get_device_name", lambda number: accelerator.type)
        names = list(map(name_of, range(torch.accelerator.device_count())))
    has_nccl = torch.distributed.is_available() and torch.distributed.is_nccl_available()
    yield check_gpu(names, here, nvidia_gpus() + amd_gpus(), has_nccl)
    for name in _OF_ENGINES:
        yield check_packages(name, name)


def _required() -> dict[str, SpecifierSet]:
    """The versions that this program requires here, by package; empty: it is not installed."""
    try:
        lines = metadata.requires(_OWN) or []
    except metadata.PackageNotFoundError:
        return {}
    required = {}
    for requirement in map(Requirement, lines):
        if not requirement.marker or requirement.marker.evaluate({"extra": ""}):
            required[requirement.name] = requirement.specifier
    return required


def check_python(version: str) -> Check:
    """Whether this version of Python is supported."""
    try:
        allowed = metadata.metadata(_OWN)["Requires-Python"]
    except metadata.PackageNotFoundError:
        return Check(
            "python",
            "warning",
            f"{version}; {_OWN} is not installed",
            fix=f"pip install -e {shlex.quote(str(environment.ROOT.parent))}",
        )
    found = f"{version} ({allowed})"
    if SpecifierSet(allowed).contains(version, prereleases=True):
        return Check("python", "ok", found)
    hint = f"create a virtual environment with a Python {allowed}"
    return Check("python", "failure", found, hint=hint)


def check_packages(title: str, *names: str, status: str = "warning") -> Check:
    """Whether packages are installed in valid versions; `status`: that of a package that is not."""
    required = _required()
    installed = []
    problems = []
    requirements = []
    for name in names:
        versions = required.get(name, SpecifierSet())
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            problem = f"{name} not installed"
        else:
            if versions.contains(version, prereleases=True):
                installed.append(f"{name} {version}")
                continue
            problem = f"{name} {version} is installed, {versions} is required"
        problems.append(problem)
        requirements.append(f"{name}{versions}")
    if not problems:
        return Check(title, "ok", ", ".join(installed))
    fix = shlex.join(["pip", "install", *requirements])
    return Check(title, status, "; ".join(problems), fix=fix)


def check_torch() -> Check:
    """Whether torch is installed in a valid version and can be imported."""
    check = check_packages("torch", "torch", status="failure")
    if check.status == "ok":
        try:
            import torch  # noqa: F401
        except (ImportError, OSError) as error:  # OSError: a library that cannot be loaded
            first_line = (str(error) or repr(error)).splitlines()[0]
            fix = "pip install torch --force-reinstall"
            return Check("torch", "failure", f"cannot be imported: {first_line}", fix=fix)
    return check


def check_memory(machine: Machine) -> Check:
    """The free main memory, within the limit of a control group."""
    free = psutil.virtual_memory().available
    group = memory.container_memory()
    if group:
        free = min(free, max(group.limit - group.used, 0))
    found = f"{size(free)} free; {machine.sentence}"
    # Importing torch and DeepSpeed alone takes about 600 MiB.
    for status, least in (("failure", 600 * MIB), ("warning", 2 * GIB)):
        if free < least:
            hint = "end other programs, raise the limit of the container or job, or train smaller"
            return Check("memory", status, found, hint=f"{hint}:  --mode resource-efficient")
    return Check("memory", "ok", found)


def check_disk(name: str, folder: Path, few: int, none: int, hint: str) -> Check:
    """Whether `folder` can be written to; a warning, or failure, below so many bytes free."""
    try:
        disk.check_writable(folder, name, needed_bytes=none)
        usage = shutil.disk_usage(folder)
    except (SettingsError, OSError) as error:
        return Check(name, "failure", str(error), hint=hint)
    found = f"{size(usage.free)} of {size(usage.total)} free"
    if usage.free < few:
        return Check(name, "warning", found, hint=hint)
    return Check(name, "ok", found)


def check_slurm() -> Check:
    """Whether Slurm's commands are on PATH, and its controller answers."""
    missing = [name for name in SLURM if not shutil.which(name)]
    if len(missing) == len(SLURM):
        return Check("slurm", "ok", "not on this machine")
    if missing:
        hint = "add the folder of Slurm's commands to PATH, or install its client package"
        return Check("slurm", "warning", f"{', '.join(missing)} not on PATH", hint=hint)
    try:
        partitions = sbatch.run(["sinfo", "-h", "-o", "%R"], timeout_s=10).split()
    except sbatch.SlurmError as error:
        hint = "scontrol ping; is slurmctld running, and is this a node of its cluster?"
        last_line = str(error).splitlines()[-1]
        return Check("slurm", "warning", f"the controller does not answer: {last_line}", hint=hint)
    return Check("slurm", "ok", f"partitions {', '.join(sorted(set(partitions)))}")


def check_gpu(names: Sequence[str], here: Machine, boards: int, has_nccl: bool) -> Check:
    """Whether torch, which can use the GPUs `names`, can use the `boards` of this machine."""
    if names:
        found = ", ".join(names)
        if here.gpu_bytes is not None:
            found += f", {size(here.gpu_bytes)}"
        if len(names) > 1 and here.device == "cuda" and not has_nccl:
            return Check("gpu", "warning", f"{found}, no NCCL to train together", hint=_TORCH)
        return Check("gpu", "ok", found)

    hint = f"update the driver: nvidia-smi, rocm-smi; {_TORCH}"
    if here.gpus:
        return Check("gpu", "failure", f"torch cannot use {here.gpus}", hint=hint)
    if boards:
        return Check("gpu", "warning", here.unused or "hidden by CUDA_VISIBLE_DEVICES", hint=hint)
    return Check("gpu", "ok", here.unused or "none: training on the CPU")
