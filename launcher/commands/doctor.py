"""The command `doctor`: what this machine can run, and what to fix."""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from launcher.base import environment, exit_codes
from launcher.base.diagnostics import PROGRAM
from launcher.base.redaction import redact
from launcher.commands import list as catalogs
from launcher.config.command_line import CommandLine
from launcher.config.machine import amd_gpus, detect_machine, nvidia_gpus
from launcher.config.schema import AUTO
from launcher.doctor import checks
from launcher.doctor.checks import GIB, MIB, Check
from launcher.run import affinity
from training.logging.printable import printable
from training.resources import cgroup


def main(command_line: CommandLine) -> int:
    """Print checks and engines; the exit code is 1 after a failure. Raises SettingsError.

    Uses no network but what Slurm's commands use.
    """
    is_json, found = command_line.as_json, []
    affinity.limit_spinning(environment.variables())  # before torch is imported
    for check in _checks():
        found.append(check)
        if not is_json:
            fix = "" if check.fix is None else f"\n{'':<23}fix: {check.fix}"
            line = f"{check.status:<8} {check.name:<13} {check.found}{fix}"
            print(printable(redact(line)), flush=True)
    rows = {row["name"]: row for row in catalogs.engines() if row["name"] != AUTO}
    failing = {check.name: check.found for check in found if check.status != "ok"}
    for row in rows.values():
        if wrong := [failing[name] for name in ("torch", *row["needs"]) if name in failing]:
            row |= {"runs_here": False, "why_not": "; ".join(wrong)}
    if is_json:
        content = {"checks": [check._asdict() for check in found], "engines": rows}
        print(json.dumps(content, indent=2))
    else:
        print("\nengines:")
        for name, row in rows.items():
            can = "runs here" if row["runs_here"] else f"cannot run here: {row['why_not']}"
            print(printable(f"{name:<14}{can}"))
        print(f"\nwhat fits:  {PROGRAM} plan --model FAMILY:SIZE --engine {AUTO}")
    has_failed = any(check.status == "failure" for check in found)
    return exit_codes.FAILURE if has_failed else exit_codes.DONE


def _checks() -> Iterator[Check]:
    here = detect_machine()
    yield checks.check_python(platform.python_version())
    yield checks.check_others()
    yield checks.check_compiler()
    yield checks.check_memory(here, cgroup.memory())
    yield checks.check_swap(cgroup.swap())
    # Containers have 64 MiB by default, which one large batch of the loader workers fills.
    fix = "docker run --shm-size=8g  or  mount -o remount,size=8G /dev/shm  or  --num-workers 0"
    if sys.platform == "linux":
        yield checks.check_disk("/dev/shm", Path("/dev/shm"), 512 * MIB, 0, fix)
    # About ten checkpoints of 124M parameters with optimizer state, and of 4M.
    fix = "delete what you do not need, or change to a folder of yours on another disk"
    yield checks.check_disk("disk space", Path.cwd(), 5 * GIB, 200 * MIB, fix)
    yield checks.check_open_files()
    yield checks.check_locked_memory(Path("/sys/class/infiniband"))
    files = (environment.ROOT / "launcher").rglob("*.py")
    yield checks.check_clock(time.time(), max(file.stat().st_mtime for file in files))
    yield checks.check_slurm()
    yield checks.check_wandb(environment.variables())
    torch_check = checks.check_package("torch")
    yield torch_check
    if torch_check.status == "failure":
        return
    import torch

    names, accelerator = [], torch.accelerator.current_accelerator()
    if accelerator is not None and torch.accelerator.is_available():
        module, count = torch.get_device_module(accelerator), torch.accelerator.device_count()
        name_of = getattr(module, "get_device_name", lambda number: accelerator.type)
        names = [name_of(number) for number in range(count)]
    has_nccl = torch.distributed.is_available() and torch.distributed.is_nccl_available()
    nccl = ".".join(map(str, torch.cuda.nccl.version())) if has_nccl else None
    yield checks.check_gpu(names, here, nvidia_gpus() + amd_gpus(), nccl)
    yield from map(checks.check_package, checks.OF_ENGINES)
