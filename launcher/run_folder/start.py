"""Decides what a start does: train a new run, or resume one from a checkpoint."""

from __future__ import annotations

from pathlib import Path

from launcher.config.machine import Machine
from launcher.config.provenance import Chosen, CliArgs
from launcher.config.resolve import resolve
from launcher.run_folder.run_plan import RunPlan


def decide(
    args: CliArgs,
    out: Path | None,
    machine: Machine,
    world_size: int | None = None,
    chosen: Chosen | None = None,
) -> RunPlan:
    """Decide what a start does, from settings files and JSON only.

    `world_size` and `chosen` as for `resolve`. Raises SettingsError with all errors.
    """
    if args.resume is None and not args.reset:
        return RunPlan(resolve(args, machine, world_size, None, chosen))
    from launcher.run_folder import resume_rules  # an ordinary start does not need it

    return resume_rules.decide(args, out, machine, world_size, chosen)
