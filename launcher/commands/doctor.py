"""The command `doctor`: what this machine can run, and what to fix."""

from __future__ import annotations

import json
import os
import platform
import resource
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
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
from gearshift.launcher.run import affinity
from gearshift.slurm import queue
from gearshift.training.logging.encoding import printable, size
from gearshift.training.resources import memory
from gearshift.training.resources.memory import Share

MIB = 2**20
GIB = 2**30
OF_ENGINES = sorted({package for engine in ENGINES.values() for package in engine.needs})
_OWN = "gearshift"
_TORCH = "install torch for your GPU: https://pytorch.org/get-started/locally"
_COMPILER = "install g++ or clang++ with its headers, on macOS  xcode-select --install ; or set CXX"
_WANDB_VARIABLES = ("WANDB_MODE", "WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")
_PROGRAM = "#include <vector>\nint main() { return std::vector<int>{0}[0]; }\n"


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
    affinity.limit_spinning(environment.variables())  # before torch is imported
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
        rows = [
            {**check._asdict(), "fix": check.fix and shlex.split(check.fix)} for check in checks
        ]
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
    yield check_others()
    yield check_compiler()
    yield check_memory(here, memory.container_memory())
    yield check_swap(memory.container_swap())
    # Containers have 64 MiB by default, which one large batch of the loader workers fills.
    fix = "docker run --shm-size=8g  or  mount -o remount,size=8G /dev/shm  or  --num-workers 0"
    if sys.platform == "linux":
        yield check_disk("/dev/shm", Path("/dev/shm"), 512 * MIB, 0, fix)
    # About ten checkpoints of 124M parameters with optimizer state, and of 4M.
    fix = "delete what you do not need, or change to a folder of yours on another disk"
    yield check_disk("disk space", Path.cwd(), 5 * GIB, 200 * MIB, fix)
    yield check_open_files()
    yield check_slurm()
    yield check_wandb(environment.variables())
    torch_check = check_package("torch")
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
    nccl = None
    if torch.distributed.is_available() and torch.distributed.is_nccl_available():
        nccl = ".".join(map(str, torch.cuda.nccl.version()))
    yield check_gpu(names, here, nvidia_gpus() + amd_gpus(), nccl)
    yield from map(check_package, OF_ENGINES)


def _check(
    name: str, text: str, advice: str, *, failure: bool = False, warning: bool = False
) -> Check:
    if not failure and not warning:
        return Check(name, "ok", text)
    status = "failure" if failure else "warning"
    if advice.startswith("pip "):
        return Check(name, status, text, fix=advice)
    return Check(name, status, text, hint=advice)


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


def _package_problems(*names: str) -> dict[str, str]:
    """Why packages are missing or in a wrong version, by the requirement to install."""
    required = _required()
    problems = {}
    for name in names:
        versions = required.get(name, SpecifierSet())
        problem = f"{name} not installed"
        with suppress(metadata.PackageNotFoundError):
            version = metadata.version(name)
            if versions.contains(version, prereleases=True):
                continue
            problem = f"{name} {version} is installed, {versions} is required"
        problems[f"{name}{versions}"] = problem
    return problems


def check_python(version: str) -> Check:
    """Whether this version of Python is supported."""
    try:
        allowed = metadata.metadata(_OWN)["Requires-Python"]
    except metadata.PackageNotFoundError:
        return Check(
            "python",
            "warning",
            f"{version}; {_OWN} is not installed",
            f"pip install -e {shlex.quote(str(environment.ROOT.parent))}",
        )
    return _check(
        "python",
        f"{version} ({allowed})",
        f"create a virtual environment with a Python {allowed}",
        failure=not SpecifierSet(allowed).contains(version, prereleases=True),
    )


def check_others() -> Check:
    """The required packages without a check of their own."""
    names = [name for name in _required() if name not in ("torch", "wandb", *OF_ENGINES)]
    problems = _package_problems(*names)
    text = "; ".join(problems.values()) or f"{len(names)} required packages in valid versions"
    return _check(
        "packages", text, shlex.join(["pip", "install", *problems]), failure=bool(problems)
    )


def check_package(name: str) -> Check:
    """A package that engines or a tracker need; torch is imported."""
    problems = _package_problems(name)
    reason = "".join(problems.values())
    fix = shlex.join(["pip", "install", *problems])
    if name == "torch" and not reason:
        try:
            import torch  # noqa: F401
        except (ImportError, OSError) as error:  # OSError: a library that cannot be loaded
            fix = "pip install torch --force-reinstall"
            first_line = (str(error) or repr(error)).splitlines()[0]
            reason = f"cannot be imported: {first_line}"
    if not reason:
        return _check(name, metadata.version(name), fix)
    return _check(name, reason, fix, failure=name == "torch", warning=True)


def check_wandb(environ: Mapping[str, str]) -> Check:
    """Whether W&B is installed, and logged in or offline. Shows no key, uses no network."""
    installed = check_package("wandb")
    if installed.status != "ok":
        return installed
    from requests.utils import get_netrc_auth

    server = environ.get("WANDB_BASE_URL") or "https://api.wandb.ai"
    if any(map(environ.get, _WANDB_VARIABLES)) or get_netrc_auth(server):
        return installed
    return Check(
        "wandb",
        "warning",
        f"{installed.found}, not logged in",
        fix="wandb login",
        hint="or without a network: export WANDB_MODE=offline",
    )


def check_compiler() -> Check:
    """Whether the C++ compiler works: torch.compile and operators of DeepSpeed need one."""
    command = environment.compiler("CXX", "c++", "g++", "clang++")
    if command is None:
        return Check("compiler", "warning", "no C++ compiler on PATH", hint=_COMPILER)
    process = subprocess.run(
        [command, "-x", "c++", "-std=c++17", "-fsyntax-only", "-"],
        input=_PROGRAM,
        capture_output=True,
        text=True,
        timeout=60,
    )
    text = " ".join([command, *process.stderr.strip().splitlines()[:1]])
    return _check("compiler", text, _COMPILER, warning=process.returncode != 0)


def check_memory(machine: Machine, group: Share | None) -> Check:
    """The free main memory, within the limit of a control `group`."""
    free = psutil.virtual_memory().available
    total = psutil.virtual_memory().total
    fix = "end other programs; train smaller:  --mode resource-efficient"
    if group and group.limit < total:
        free = min(free, max(group.limit - group.used, 0))
        total = group.limit
        fix = "docker run --memory=SIZE  or  sbatch --mem=SIZE  or  --mode resource-efficient"
    return _check(
        "memory",
        f"{size(free)} of {size(total)} free; {machine.sentence}",
        fix,
        failure=free < 600 * MIB,  # importing torch and DeepSpeed alone takes about that much
        warning=free < 2 * GIB,
    )


def check_swap(group: Share | None) -> Check:
    """Swap in use slows training down."""
    total = psutil.swap_memory().total
    used = psutil.swap_memory().used
    if group:
        total = min(total or group.limit, group.limit)
        used = group.used
    if not total:
        return Check("swap", "ok", "none")
    return _check(
        "swap",
        f"{size(used)} of {size(total)} in use",
        "end other programs: a run that swaps is many times slower",
        warning=2 * used > total,
    )


def check_disk(name: str, folder: Path, few: int, none: int, fix: str) -> Check:
    """Whether `folder` can be written to; a warning, or failure, below so many bytes free."""
    try:
        disk.check_writable(folder, name)
        usage = shutil.disk_usage(folder)
        files = os.statvfs(folder)
    except (SettingsError, OSError) as error:
        return _check(name, str(error), fix, failure=True)
    has_inode = files.f_favail > 0 or not files.f_files
    text = f"{size(usage.free)} of {size(usage.total)} free"
    if not has_inode:
        text += ", no inode"
    return _check(
        name,
        text,
        fix,
        failure=usage.free < none or not has_inode,
        warning=usage.free < few,
    )


def check_open_files() -> Check:
    """The number of files that a process may open.

    Each tensor that a loader worker sends keeps a file open; ranks keep some per neighbor.
    """
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft, hard = (2**20 if limit == resource.RLIM_INFINITY else limit for limit in limits)
    fix = f"ulimit -n {min(hard, 65536)}" if hard >= 1024 else "ask for a higher limit (nofile)"
    return _check("open files", f"up to {soft}", fix, failure=soft < 256, warning=soft < 1024)


def check_slurm() -> Check:
    """Whether Slurm's commands are on PATH, and its controller answers."""
    missing = [name for name in queue.COMMANDS if not shutil.which(name)]
    fix = "add the folder of Slurm's commands to PATH, or install its client package"
    if len(missing) == len(queue.COMMANDS):
        return _check("slurm", "not on this machine", fix)
    if missing:
        return _check("slurm", f"{', '.join(missing)} not on PATH", fix, warning=True)
    try:
        partitions = queue.partitions(10)
    except queue.QueueError as error:
        return Check(
            "slurm",
            "warning",
            f"the controller does not answer: {error}",
            hint="scontrol ping; is slurmctld running, and is this a node of its cluster?",
        )
    return _check("slurm", f"partitions {', '.join(partitions) or 'none'}", fix)


def check_gpu(names: Sequence[str], here: Machine, boards: int, nccl: str | None) -> Check:
    """Whether torch, which can use the GPUs `names`, can use the `boards` of this machine.

    Several communicate by `nccl`, its version; None: torch lacks it.
    """
    if names:
        text = ", ".join(f"{count} × {name}" for name, count in Counter(names).items())
        if here.gpu_bytes is not None:
            text += f", {size(here.gpu_bytes)}"
        if len(names) > 1 and here.device == "cuda" and nccl is None:
            return Check("gpu", "warning", f"{text}, no NCCL to train together", hint=_TORCH)
        return Check("gpu", "ok", f"{text}, NCCL {nccl}")

    hint = f"update the driver: nvidia-smi, rocm-smi; {_TORCH}"
    if here.gpus:
        return Check("gpu", "failure", f"torch cannot use {here.gpus}", hint=hint)
    if boards:
        return Check("gpu", "warning", here.unused or "hidden by CUDA_VISIBLE_DEVICES", hint=hint)
    return Check("gpu", "ok", here.unused or "none: training on the CPU")
