"""The command `doctor`: what this machine can run, and what to fix."""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from launcher.base import environment, exit_codes
from launcher.base.diagnostics import PROGRAM
from launcher.commands import list as catalogs
from launcher.config.command_line import CommandLine
from launcher.config.machine import detect_machine
from launcher.config.schema import AUTO
from launcher.doctor import gpu, packages, services, system
from launcher.doctor.packages import SHOWN, Packages
from launcher.doctor.result import Check
from launcher.run import affinity
from training.logging.printable import printable

_INFINIBAND = Path("/sys/class/infiniband")
_SHARED_MEMORY = Path("/dev/shm")


def main(command_line: CommandLine) -> int:
    """Print checks and engines; the exit code is 1 after a failure. Raises SettingsError.

    Uses no network but what Slurm's commands use.
    """
    is_json, checks = command_line.as_json, []
    affinity.limit_spinning(environment.variables())  # before torch is imported
    for check in _checks(Packages(sys.path)):
        checks.append(check)
        if not is_json:
            print(check.text, flush=True)
    rows = {row["name"]: row for row in catalogs.engines() if row["name"] != AUTO}
    failing = {check.name: check.found for check in checks if check.status != "ok"}
    for row in rows.values():
        for package in ("torch", *row["needs"]):
            if package in failing and row["runs_here"]:
                row |= {"runs_here": False, "why_not": f"{package} {failing[package]}"}
    if is_json:
        print(json.dumps({"checks": [asdict(each) for each in checks], "engines": rows}, indent=2))
    else:
        print("\nengines:")
        for name, row in rows.items():
            can = "runs here" if row["runs_here"] else f"cannot run here: {row['why_not']}"
            print(printable(f"{name:<14}{can}"))
        print(f"\nwhat fits:  {PROGRAM} plan --model FAMILY:SIZE --engine {AUTO}")
    has_failed = any(check.status == "failure" for check in checks)
    return exit_codes.FAILURE if has_failed else exit_codes.DONE


def _checks(installed: Packages) -> Iterator[Check]:
    yield packages.check_python(platform.python_version(), installed)
    yield packages.check_others(installed)
    yield packages.check_compiler()
    yield system.check_memory(detect_machine())
    yield system.check_swap()
    yield system.check_shared_memory(_SHARED_MEMORY)
    yield system.check_disk_space(Path.cwd())
    yield system.check_open_files()
    yield system.check_locked_memory(_INFINIBAND)
    yield system.check_clock(time.time(), (environment.ROOT / "launcher").rglob("*.py"))
    yield services.check_slurm()
    yield services.check_wandb(installed, environment.variables(), Path.home())
    torch = packages.check_package("torch", installed, _import_torch)
    yield torch
    if torch.status != "failure":
        gpus = gpu.read_gpus()
        yield from (gpu.check_gpu(gpus), gpu.check_driver(gpus), gpu.check_nccl(gpus))
        yield from (
            packages.check_package(n, installed) for n in SHOWN if n not in ("torch", "wandb")
        )


def _import_torch() -> str | None:
    try:
        import torch  # noqa: F401
    except (ImportError, OSError) as error:  # OSError: a library that cannot be loaded
        return (str(error) or repr(error)).splitlines()[0]
    return None
