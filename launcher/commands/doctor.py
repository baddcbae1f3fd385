"""The command `doctor`: what this machine can run, and what to fix."""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from launcher.base import environment, exit_codes
from launcher.base.diagnostics import PROGRAM
from launcher.commands import list as catalogs
from launcher.config.command_line import CommandLine
from launcher.config.machine import Machine, detect_machine
from launcher.config.schema import AUTO
from launcher.doctor import gpu, packages, services, system
from launcher.doctor.packages import IMPORTS, Imports, Packages
from launcher.doctor.result import Check
from launcher.run import affinity
from training.logging.printable import printable

_INFINIBAND = Path("/sys/class/infiniband")
_SHARED_MEMORY = Path("/dev/shm")
Rows = dict[str, dict[str, Any]]


@dataclass
class _Report:
    """What was found so far, printed as it comes unless it will be JSON."""

    is_quiet: bool
    checks: list[Check] = field(default_factory=list)

    def add(self, check: Check) -> Check:
        """Keep and print one check."""
        self.checks.append(check)
        self.say(check.text)
        return check

    def say(self, text: str = "") -> None:
        """Print a line, unless the output is JSON."""
        if not self.is_quiet:
            print(printable(text), flush=True)


def main(command_line: CommandLine) -> int:
    """Print checks and engines; the exit code is 1 after a failure. Raises SettingsError.

    Uses no network but what Slurm's commands use. Writes a temporary file.
    """
    here = detect_machine()
    installed, report = Packages(sys.path), _Report(command_line.as_json)
    affinity.limit_spinning(environment.variables())  # before torch is imported
    rows = {row["name"]: row for row in catalogs.engines() if row["name"] != AUTO}
    has_torch = installed.find("torch") is not None
    imports = Imports(name for name in IMPORTS if has_torch and installed.find(name))
    try:
        for check in _quick_checks(here, installed):
            report.add(check())
        torch = report.add(packages.check_package("torch", installed, _import_torch))
        if torch.status == "failure":
            _forbid(rows, "torch", torch)
        else:
            gpus = gpu.read_gpus()
            for about_gpus in (gpu.check_gpu, gpu.check_driver, gpu.check_nccl):
                report.add(about_gpus(gpus))
            for name in IMPORTS:
                importing = partial(imports.error, name)
                _forbid(rows, name, report.add(packages.check_package(name, installed, importing)))
    finally:
        imports.close()
    has_failed = any(check.status == "failure" for check in report.checks)
    if report.is_quiet:
        checks = [asdict(check) for check in report.checks]
        print(json.dumps({"checks": checks, "engines": rows}, indent=2))
    else:
        _print_engines(report, rows)
    return exit_codes.FAILURE if has_failed else exit_codes.DONE


def _quick_checks(here: Machine, installed: Packages) -> Iterator[Callable[[], Check]]:
    """The checks that do without torch."""
    folder = Path.cwd()
    yield partial(packages.check_python, platform.python_version(), installed)
    yield partial(packages.check_others, installed)
    yield packages.check_compiler
    yield partial(system.check_memory, here)
    yield system.check_swap
    yield partial(system.check_shared_memory, _SHARED_MEMORY)
    yield partial(system.check_disk_space, folder)
    yield partial(system.check_disk_speed, folder)
    yield system.check_open_files
    yield partial(system.check_locked_memory, _INFINIBAND)
    files = (environment.ROOT / "launcher").rglob("*.py")
    yield partial(system.check_clock, time.time(), files)
    yield services.check_slurm
    yield partial(services.check_wandb, installed, environment.variables(), Path.home())


def _import_torch() -> str | None:
    try:
        import torch  # noqa: F401
    except (ImportError, OSError) as error:  # OSError: a library that cannot be loaded
        return (str(error) or repr(error)).splitlines()[0]
    return None


def _forbid(rows: Rows, package: str, check: Check) -> None:
    """Mark the engines that need a package which does not work."""
    for row in rows.values():
        if check.status != "ok" and package in ("torch", *row["needs"]) and row["runs_here"]:
            row |= {"runs_here": False, "why_not": f"{package} {check.found}"}


def _print_engines(report: _Report, rows: Rows) -> None:
    report.say("\nengines:")
    for name, row in rows.items():
        can = "runs here" if row["runs_here"] else f"cannot run here: {row['why_not']}"
        report.say(f"{name:<14}{can}")
    report.say(f"\nwhat fits:  {PROGRAM} plan --model FAMILY:SIZE --engine {AUTO}")
