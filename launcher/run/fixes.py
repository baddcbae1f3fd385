"""The commands against faults, with the values of a run; and failures with cause and fix."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.base.diagnostics import PROGRAM, from_here, plain
from launcher.config import errors, machine
from launcher.config.provenance import Resolved
from launcher.config.schema import model_name
from launcher.run_folder import checkpoint_search, run_folder
from training.faults import FAULTS

if TYPE_CHECKING:
    from launcher.run.failures import Report

_LR_FACTOR = 10
"""A learning rate that fails is rarely wrong by less; the next try shows the direction."""
_TIMEOUT_FACTOR = 4
_MOST_PREFETCHED = 8
_FIX = re.compile(r"(?m)^  fix .*$")


def commands(resolved: Resolved, folder: Path) -> dict[str, str]:
    """The values of the fixes in training.faults for the run in `folder`. Reads the disk."""
    settings = resolved.settings
    shown = shlex.quote(from_here(folder))
    again = f"{PROGRAM} --config {shlex.quote(from_here(folder / run_folder.SETTINGS))}"
    is_saved = checkpoint_search.newest_step(folder) is not None
    lr, data = settings.optim.lr, shlex.quote(str(getattr(settings.data, "path", "")))
    return {
        "again": again,
        "retry": f"{PROGRAM} resume {shown}" if is_saved else again,
        "nonfinite": _despite_nonfinite(resolved, shown, again),
        "track": f"{PROGRAM} track {shown}",
        "data_check": f"{PROGRAM} data check {data} --model {model_name(settings.model)}",
        "other_folder": "runs/other",
        "lower_lr": _number(lr / _LR_FACTOR),
        "higher_lr": _number(lr * _LR_FACTOR),
        "loader": _loader(settings.loader.workers, machine.detect_machine().cores),
        "timeout_s": plain(_TIMEOUT_FACTOR * settings.engine.timeout_s),
    }


def _despite_nonfinite(resolved: Resolved, shown: str, again: str) -> str:
    """The command against evaluations that are not finite: take more of them, or avoid them."""
    settings = resolved.settings
    if settings.train.on_nonfinite == "stop":
        first = f"{PROGRAM} resume {shown}" if settings.save.last else again
        return f'{first} --set "train.on_nonfinite=skip 9"'
    if settings.precision != "fp32":
        return f"{again} --precision fp32"
    return f"{again} --lr {_number(settings.optim.lr / _LR_FACTOR)}"


def explained(report: Report, resolved: Resolved, folder: Path) -> Report:
    """`report` with the likely cause and the next command, if its fault is known.

    Reads the disk.
    """
    if report.kind == "invalid input":
        return replace(report, text=_FIX.sub(partial(_as_typed, resolved), report.text))
    if report.fault is None:
        return report
    fault = FAULTS[report.fault]
    fix = fault.fix.format(**commands(resolved, folder))
    lines = [report.text, f"  {'cause':<12}  {fault.cause}", f"  {'fix':<12}  {fix}"]
    return replace(report, text="\n".join(lines), fault=None)


def _as_typed(resolved: Resolved, line: re.Match[str]) -> str:
    return errors.as_typed(line[0], resolved.values)


def findings(folder: Path) -> set[str]:
    """The faults that the run in `folder` has reported so far. Reads the disk."""
    found = set()
    with suppress(OSError, ValueError):  # damage is reported by those who need the file
        for line in (folder / run_folder.EVENTS).read_text(encoding="utf-8").splitlines():
            if '"fault"' in line:
                event: Mapping[str, Mapping[str, str]] = json.loads(line)
                found.add(event["facts"]["fault"])
    return found


def _loader(workers: int, cores: int) -> str:
    """The option for faster loading: more workers while there are cores, else more ahead."""
    more = min(max(2 * workers, 2), max(cores - 1, 1))
    if more > workers:
        return f"--num-workers {more}"
    return f"--set loader.prefetch={_MOST_PREFETCHED}"


def _number(value: float) -> str:
    return plain(float(f"{value:.3g}"))
