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
from typing import TYPE_CHECKING, Any

from launcher.base import environment, exit_codes
from launcher.base.diagnostics import PROGRAM, SettingsError
from launcher.commands import list as catalogs
from launcher.config import presets
from launcher.config.command_line import CommandLine
from launcher.config.machine import Machine, detect_machine
from launcher.config.options import JSON
from launcher.config.provenance import CliArgs
from launcher.config.resolve import resolve
from launcher.config.schema import AUTO, model_name
from launcher.doctor import gpu, packages, services, system
from launcher.doctor.packages import IMPORTS, Imports, Packages
from launcher.doctor.result import Check
from launcher.plan.target import Described
from launcher.run import affinity
from training.logging.printable import printable

if TYPE_CHECKING:
    from launcher.doctor.plans import Plans

_INFINIBAND = Path("/sys/class/infiniband")
_SHARED_MEMORY = Path("/dev/shm")
_SPEED_S = 0.3
"""For each of three measurements of a device."""
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
    """Print checks, engines and speeds; the exit code is 1 after a failure. Raises SettingsError.

    Uses no network but what Slurm's commands use. Writes a temporary file.
    """
    here = detect_machine()
    model = _model(command_line, here)
    installed, report = Packages(sys.path), _Report(JSON.flag in command_line.flags)
    for check in _quick_checks(here, installed):
        report.add(check())
    affinity.limit_spinning(environment.variables())  # before torch is imported
    rows = {row["name"]: row for row in catalogs.engines() if row["name"] != AUTO}
    torch = report.add(packages.check_package("torch", installed, _import_torch))
    found: dict[str, Any] = {"model": model, "largest": None, "speeds": {}}
    if torch.status == "failure":
        _forbid(rows, "torch", torch)
        _print_engines(report, model, rows)
    else:
        _with_torch(report, found, rows, here, installed)
    has_failed = any(check.status == "failure" for check in report.checks)
    if report.is_quiet:
        checks = [asdict(check) for check in report.checks]
        print(json.dumps({"checks": checks, "engines": rows, **found}, indent=2))
    return exit_codes.FAILURE if has_failed else exit_codes.DONE


def _model(command_line: CommandLine, here: Machine) -> str:
    """The name of the model, with its size. Raises SettingsError with all errors."""
    diagnostics = list(command_line.diagnostics)
    try:
        resolved = resolve(CliArgs(model=command_line.args.model), here)
    except SettingsError as error:
        raise SettingsError([*diagnostics, *error.diagnostics]) from None
    if diagnostics:
        raise SettingsError(diagnostics)
    return command_line.args.model or model_name(resolved.settings.model)


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


def _with_torch(
    report: _Report, found: dict[str, Any], rows: Rows, here: Machine, installed: Packages
) -> None:
    """All that needs torch; fills `found` and `rows`."""
    import torch

    from launcher.doctor import speed
    from launcher.doctor.plans import FAMILY, Plans

    runnable = [name for name, row in rows.items() if row["runs_here"]]
    imports = Imports(name for name in IMPORTS if installed.find(name))
    plans = Plans(found["model"], presets.modes(), runnable, Described(here))
    try:
        gpus = gpu.read_gpus()
        for check in (gpu.check_gpu, gpu.check_driver, gpu.check_nccl):
            report.add(check(gpus))
        for name in IMPORTS:
            importing = partial(imports.error, name)
            _forbid(rows, name, report.add(packages.check_package(name, installed, importing)))
        _fill(rows, plans)
        _print_engines(report, found["model"], rows)
        found["largest"] = plans.largest()
    finally:
        plans.close()
        imports.close()
    report.say(_largest_line(FAMILY, found["largest"]))
    report.say()
    for device in dict.fromkeys(["cpu", here.device if gpus.names else "cpu"]):
        speeds = list(speed.measure(torch.device(device), _SPEED_S))
        report.add(speed.check_speed(device, speeds))
        found["speeds"][device] = [asdict(one) for one in speeds]


def _forbid(rows: Rows, package: str, check: Check) -> None:
    """Mark the engines that need a package which does not work."""
    for row in rows.values():
        if check.status != "ok" and package in ("torch", *row["needs"]) and row["runs_here"]:
            row |= {"runs_here": False, "why_not": f"{package} {check.found}"}


def _fill(rows: Rows, plans: Plans) -> None:
    """Add the plans of each mode to the engines that can run."""
    for mode, cells in plans.modes():
        for name, cell in cells.items():
            if rows[name]["runs_here"]:
                facts = {**asdict(cell), "text": cell.text, "reason": cell.reason}
                rows[name].setdefault("modes", {})[mode] = facts


def _print_engines(report: _Report, model: str, rows: Rows) -> None:
    modes = list(presets.modes())
    report.say(f"\n{model} on this machine, by plans:")
    report.say("".join([f"{'':<14}", *(f"{mode:<{_width(mode)}}" for mode in modes)]).rstrip())
    reasons: dict[str, list[str]] = {}
    for name, row in rows.items():
        if not row["runs_here"]:
            report.say(f"{name:<14}cannot run here: {row['why_not']}")
            continue
        cells = row.get("modes", {})
        texts = (
            f"{cells[mode]['text'] if mode in cells else '–':<{_width(mode)}}" for mode in modes
        )
        report.say(f"{name:<14}{''.join(texts)}".rstrip())
        for mode, cell in cells.items():
            if cell["reason"] is not None:
                reasons.setdefault(cell["reason"], []).append(f"{name} {mode}")
    for reason, places in reasons.items():
        report.say(f"  {', '.join(places)}: {reason}")


def _width(mode: str) -> int:
    return max(len(mode), len("fits")) + 2


def _largest_line(family: str, size: str | None) -> str:
    if size is None:
        return f"no size of {family} fits this machine"
    return f"largest size of {family} that fits:  {PROGRAM} --model {family}:{size} --engine {AUTO}"
