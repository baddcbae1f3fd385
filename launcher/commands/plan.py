"""The command `plan`: memory, traffic and operations of a run, without running it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.base import environment
from launcher.base.diagnostics import PROGRAM, plain
from launcher.commands import output
from launcher.config import machine, selection
from launcher.config.command_line import CommandLine
from launcher.config.options import PLANNED_MACHINE, split_options
from launcher.config.provenance import CLI_LAYER, CliArgs, Origin, Resolved, Setting, keys_of
from launcher.plan import auto, ladder, target
from launcher.plan.target import Described
from launcher.run import affinity
from launcher.run_folder.run_plan import RunPlan
from launcher.run_folder.start import decide
from launcher.stages import pipeline

if TYPE_CHECKING:
    from launcher.plan.plan import Plan


def main(command_line: CommandLine) -> int:
    """Print the plan, of staged runs one per stage, and what fits if it does not.

    Raises SettingsError.
    """
    diagnostics, given = list(command_line.diagnostics), list[CliArgs]()
    described = target.describe(command_line.values, machine.detect_machine(), diagnostics)

    def prepare(args: CliArgs, out: Path | None) -> RunPlan:
        if (stage := selection.choose(args).stage) is not None:
            declared = selection.declared_stages(selection.choose(args).family)
            loads = {each.name: each.loads for each in declared}[stage]
            if loads is not None:  # the first weights of a later stage alone need not exist
                any_run = Setting("RUN", Origin(CLI_LAYER, "any run: a plan reads no weights"))
                args = replace(args, filled={loads: any_run, **args.filled})
        plan = RunPlan(resolve_with(described, args, ()), out=out, name="plan")
        given.append(args)
        return plan

    parts = pipeline.runs_of(pipeline.prepare(command_line.args, None, diagnostics, prepare))
    affinity.limit_spinning(environment.variables())  # before torch is imported
    from launcher.plan import render

    contents, texts, command = {}, [], partial(_run_command, command_line)
    for args, (name, title, part) in zip(given, parts, strict=True):
        resolved, plan, steps = _planned(described, args, part.resolved)
        contents[name] = _as_json(plan, steps)
        texts.append(title + render.text(resolved, plan, steps, command))
    return output.show(command_line, contents.get("", contents), "\n\n".join(texts))


def resolve_with(described: Described, args: CliArgs, sets: Sequence[str]) -> Resolved:
    """The settings with `sets`; those of a stage without first weights. Raises SettingsError."""
    with_sets = args.with_sets(sets)

    def decided(world_size: int | None) -> Resolved:
        is_count = world_size is None and described.nodes > 1  # of the processes of a node
        if sets or is_count:  # an advice names its engine
            return decide(with_sets, None, described.machine, world_size).resolved
        return auto.decide_engine(with_sets, None, described, world_size).resolved

    resolved = described.resolve(decided)
    stages = selection.declared_stages(resolved.settings.model.family)
    first = [stage.loads for stage in stages if stage.loads and stage.name in resolved.settings.stages]
    values = {key: replace(resolved.values[key], value=None) for key in first}  # they do not matter
    return replace(resolved, values={**resolved.values, **values})


def _planned(
    described: Described, args: CliArgs, resolved: Resolved
) -> tuple[Resolved, Plan, list[ladder.Step]]:
    """The settings that are planned, their plan, and the steps of the ladder if it does not fit."""
    from launcher.plan.plan import open_planner

    with open_planner(resolved, described) as planner:

        def plan_with(change: ladder.Change) -> Plan:
            sets = [f"{key}={plain(value)}" for key, value in change.items()]
            return planner.plan(resolve_with(described, args, sets))

        resolved = planner.fitted(resolved)
        plan = planner.plan(resolved)
        steps = ladder.climb(resolved, plan, plan_with) if plan.fits is False else ()
        return resolved, plan, list(steps)


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
