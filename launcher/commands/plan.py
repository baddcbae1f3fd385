"""The command `plan`: memory, traffic and operations of a run, without running it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from launcher.base import environment
from launcher.base.diagnostics import PROGRAM, plain
from launcher.commands import output
from launcher.config import machine
from launcher.config.command_line import CommandLine
from launcher.config.options import PLANNED_MACHINE, split_options
from launcher.config.provenance import keys_of
from launcher.plan import ladder, target
from launcher.plan.target import Described
from launcher.run import affinity
from launcher.stages.planned import PlannedRun, planned_runs, resolve_with

if TYPE_CHECKING:
    from launcher.plan.plan import Plan


def main(command_line: CommandLine) -> int:
    """Print the plan, of staged runs one per stage, and what fits if it does not.

    Raises SettingsError.
    """
    diagnostics = list(command_line.diagnostics)
    described = target.describe(command_line.values, machine.detect_machine(), diagnostics)
    parts = planned_runs(described, command_line.args, diagnostics)
    affinity.limit_spinning(environment.variables())  # before torch is imported
    from launcher.plan import render

    plans = [_planned(described, part) for part in parts]
    contents = {part.name: _as_json(plan, steps) for part, plan, steps in plans}
    command = partial(_run_command, command_line)
    texts = [
        f"{part.title}\n\n" * bool(part.title) + render.text(part.resolved, plan, steps, command)
        for part, plan, steps in plans
    ]
    return output.show(command_line, contents.get("", contents), "\n\n".join(texts))


def _planned(described: Described, part: PlannedRun) -> tuple[PlannedRun, Plan, Sequence[ladder.Step]]:
    from launcher.plan.plan import open_planner

    with open_planner(part.resolved, described) as planner:

        def plan_with(change: ladder.Change) -> Plan:
            sets = [f"{key}={plain(value)}" for key, value in change.items()]
            return planner.plan(resolve_with(described, part.args, sets))

        part = replace(part, resolved=planner.fitted(part.resolved))
        plan = planner.plan(part.resolved)
        steps = ladder.climb(part.resolved, plan, plan_with) if plan.fits is False else ()
        return part, plan, list(steps)


def _as_json(plan: Plan, steps: Sequence[ladder.Step]) -> dict[str, Any]:
    take = ladder.taken(steps)
    rungs = [
        {
            "name": step.name,
            "set": step.sets,
            "effect": step.effect,
            "relative_time": step.plan.cost / plan.cost,
            "take": step is take,
            **step.plan.as_json(),
        }
        for step in steps
    ]
    return plan.as_json() | {"advice": [r for r in rungs if r["take"]], "rungs": rungs}


def _run_command(command_line: CommandLine, sets: Sequence[str]) -> str:
    """The run that was planned, as typed, with `sets` and without what they replace.

    Options of the machine are left out.
    """
    options, keys = {option.flag: option for option in command_line.command.options}, keys_of(sets)
    left_out, arguments = {option.flag for option in PLANNED_MACHINE}, list[str]()
    for _, words, _ in split_options(command_line.command, command_line.argv):
        flag, _, joined = words[0].partition("=")
        key = (joined or words[-1]).partition("=")[0].strip() if flag == "--set" else options[flag].key
        if flag not in left_out and key not in keys:
            arguments += words
    for text in sets:
        arguments += ["--set", text]
    return shlex.join([*PROGRAM.split(), *arguments])
