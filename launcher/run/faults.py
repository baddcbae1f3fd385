"""The commonest faults of runs: the symptom, the likely cause, and the next command."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from gearshift.launcher.base.diagnostics import arguments, from_here, plain, program_line
from gearshift.launcher.config.provenance import Resolved
from gearshift.launcher.run_folder import checkpoint_search, run_folder
from gearshift.training.callbacks.base import Facts, Json


@dataclass(frozen=True)
class Fault:
    """A fault of a run; braces hold values of the run that has it."""

    title: str
    seen: str
    """The message, or what a check of the metrics found."""
    cause: str
    fix: str
    """The next command; its values are those of `commands`."""
    hint: str | None = None
    """What to do before it."""
    warns: bool = False
    """Its event is a warning, not only advice."""
    message: str | None = None
    """A regular expression for the texts of libraries and of the system about it."""


FAULTS: Mapping[str, Fault] = TypeAdapter(dict[str, Fault]).validate_json(
    Path(__file__).with_suffix(".json").read_bytes()
)


def advice(name: str, values: Facts, commands: Mapping[str, str]) -> tuple[str, Json]:
    """The event about a symptom, by its kind and facts: `text` for people, `fix` for programs.

    `values` fill what was seen; or they have the text `seen`, and `is_end` where it ends the run.
    """
    fault = FAULTS[name]
    symptom = str(values.get("seen") or fault.seen.format(**values))
    fix = fault.fix.format(**{**values, **commands})
    facts: Json = {
        "text": f"{symptom}: {fault.cause}; fix:  {fix}",
        "fault": name,
        "seen": symptom,
        "cause": fault.cause,
        "fix": arguments(fix),
    }
    for key, value in (("hint", fault.hint), ("is_end", values.get("is_end"))):
        if value:
            facts[key] = value
    if not fault.warns:
        return "advice", facts
    return "warning", {"names": values["names"], **facts}


def recognized(message: str) -> str | None:
    """The name of the fault that `message` of a library or the system is about."""
    for name, fault in FAULTS.items():
        if fault.message and re.search(fault.message, message):
            return name
    return None


def commands(resolved: Resolved, folder: Path) -> dict[str, str]:
    """The values of the fixes for the run in `folder`. Reads the disk."""
    settings = resolved.settings
    again = program_line("--config", from_here(folder / run_folder.SETTINGS))
    resume = program_line("resume", from_here(folder))
    lower = plain(float(f"{settings.optim.lr / 10:.3g}"))
    higher = plain(float(f"{settings.optim.lr * 10:.3g}"))
    longer = ""
    if settings.train.max_steps:
        longer = f"--max-steps {2 * settings.train.max_steps}"
    elif settings.train.epochs:
        longer = f"--set train.epochs={2 * settings.train.epochs:g}"
    nonfinite = f"{again} --lr {lower}"
    if settings.train.on_nonfinite == "stop":  # take more of them
        nonfinite = f'{resume if settings.save.last else again} --set "train.on_nonfinite=skip 9"'
    return {
        "again": again,
        "retry": resume if checkpoint_search.newest_step(folder) is not None else again,
        "nonfinite": nonfinite,
        "lower_lr": lower,
        "higher_lr": higher,
        "longer": longer,
        "workers": str(max(2 * settings.loader.workers, 2)),
        "timeout_s": plain(4 * settings.engine.timeout_s),
    }
