"""The command `plan`: memory, traffic and operations of a run, without running it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gearshift.launcher.base import environment
from gearshift.launcher.base.diagnostics import PROGRAM, counted, plain
from gearshift.launcher.commands import output
from gearshift.launcher.config import machine, selection
from gearshift.launcher.config.command_line import CommandLine, arguments
from gearshift.launcher.config.provenance import CLI_LAYER, CliArgs, Origin, Resolved, Setting
from gearshift.launcher.config.schema import model_name
from gearshift.launcher.plan import auto, ladder, target
from gearshift.launcher.plan.ladder import Step, taken
from gearshift.launcher.plan.target import MARGIN, MEASURED, UNCOMPILED, Described
from gearshift.launcher.run import affinity
from gearshift.launcher.run_folder.resume_rules import decide
from gearshift.launcher.run_folder.run_plan import RunPlan
from gearshift.launcher.stages import pipeline
from gearshift.training.logging.quantities import amount, duration, size

if TYPE_CHECKING:
    from gearshift.launcher.plan.plan import Plan
    from gearshift.launcher.plan.time import Seconds


def main(command_line: CommandLine) -> int:
    """Print the plan, of staged runs one per stage, and what fits if it does not.

    Raises SettingsError.
    """
    diagnostics = list(command_line.diagnostics)
    given: list[CliArgs] = []
    described = target.describe(command_line.values, machine.detect_machine(), diagnostics)

    def prepare(args: CliArgs, out: Path | None) -> RunPlan:
        choice = selection.choose(args)
        if choice.stage is not None:
            declared = selection.declared_stages(choice.family)
            loads = {each.name: each.loads for each in declared}[choice.stage]
            if loads is not None:  # the first weights of a later stage alone need not exist
                any_run = Setting("RUN", Origin(CLI_LAYER, "any run: a plan reads no weights"))
                args = replace(args, filled={loads: any_run, **args.filled})
        plan = RunPlan(resolve_with(described, args, ()), out=out, name="plan")
        given.append(args)
        return plan

    parts = pipeline.runs_of(pipeline.prepare(command_line.args, None, diagnostics, prepare))
    affinity.limit_spinning(environment.variables())  # before torch is imported
    contents = {}
    texts = []
    for args, (name, title, part) in zip(given, parts, strict=True):
        resolved, plan, steps = _planned(described, args, part.resolved)
        contents[name] = _as_json(plan, steps)
        texts.append(title + _render(resolved, plan, steps, command_line.args))
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
    first = [
        stage.loads for stage in stages if stage.loads and stage.name in resolved.settings.stages
    ]
    values = {key: replace(resolved.values[key], value=None) for key in first}  # they do not matter
    return replace(resolved, values={**resolved.values, **values})


def _planned(
    described: Described, args: CliArgs, resolved: Resolved
) -> tuple[Resolved, Plan, list[ladder.Step]]:
    """The settings that are planned, their plan, and the steps of the ladder if it does not fit."""
    from gearshift.launcher.plan.plan import open_planner

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


def _render(resolved: Resolved, plan: Plan, steps: Sequence[Step], args: CliArgs) -> str:
    """The plan for people; `args` are those of the command."""
    settings = resolved.settings
    target = plan.target
    chosen = resolved.chosen
    where = f"{counted(target.nodes, 'node')} × " if target.nodes > 1 else ""
    trained = (
        ""
        if plan.trace.trainable == plan.parameters
        else f", {plan.trace.trainable:,} of them trained"
    )
    ram = f"  of {size(target.ram_bytes)}" if target.ram_bytes else ""
    lines = [
        f"model        {model_name(settings.model)}, {plan.parameters:,} parameters{trained}",
        f"mode         {settings.mode}, {settings.precision}",
        f"engine       {plan.engine} on {where}{counted(target.ranks_per_node, 'rank')}, {target.device}",
        *(
            f"             {line}"
            for line in ([] if chosen is None else [chosen.line, *chosen.others])
        ),
        f"step         {resolved.batching}",
        f"operations   {amount(plan.trace.flops * target.ranks)}FLOP per step",
        f"traffic      {size(plan.placed.sent_bytes)} sent per rank and step",
        f"checkpoint   {size(plan.checkpoint_bytes)}",
        f"length       {counted(plan.steps, 'step')}",
        f"time         {_time(plan.seconds)}",
        *([] if plan.untraced is None else [f"basis        {MEASURED}: {plan.untraced}"]),
        *([f"basis        {UNCOMPILED}"] if plan.is_compiled else []),
        "",
        f"{'peak of a rank':<18} {size(plan.device_bytes):>10}",
    ]
    for kind, held in plan.device.items():
        share = held / max(plan.device_bytes, 1)
        lines.append(f"  {kind.name.lower():<16} {size(held):>10}  {share:>4.0%}")
    lines += [f"{'host, each node':<18} {size(plan.host_bytes):>10}{ram}", ""]
    if plan.fits:
        lines.append(f"fits: {plan.needs}")
    elif plan.fits is None:
        advice = "say how much there is with  --gpu-memory SIZE  or  --ram SIZE"
        lines.append(f"needs {plan.needs}; {advice}")
    else:
        free = " that other processes, the CUDA context and NCCL leave"
        free = f", of which {MARGIN:.0%} stay free" if plan.is_host_bound else free
        lines.append(f"does not fit: {plan.needs}{free}")
    take = taken(steps)
    if steps:
        lines += ["", f"  {'ladder':<25}{'rank':>10} {'host':>10} {'time':>6}"]
    for step in steps:
        rung = step.plan
        fits = "" if step.plan.fits is False else "fits"
        sizes = f"{size(rung.device_bytes):>10} {size(rung.host_bytes):>10} {rung.cost / plan.cost:>6.2f}"
        line = f"{'>' if step is take else ' '} {step.name:<25}{sizes}"
        lines.append(f"{line}  {', '.join(filter(None, (fits, step.effect)))}".rstrip())
    if take is not None:
        command = shlex.join(arguments(args.with_sets(take.sets)))
        lines += ["", f"  {PROGRAM} {command}    ({take.plan.needs})"]
    return "\n".join(lines)


def _time(seconds: Seconds) -> str:
    parts = (seconds.step, seconds.epoch, seconds.run)
    known = [duration(s) if s >= 1 else f"{1000 * s:.3g} ms" for s in parts if s is not None]
    if len(known) < len(parts):
        return seconds.basis
    least = "at least " if seconds.is_least else ""
    return f"{least}{known[0]} per step, {known[1]} per epoch, {known[2]} for the run ({seconds.basis})"
