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
from gearshift.launcher.config.argument_list import arguments
from gearshift.launcher.config.command_line import CommandLine
from gearshift.launcher.config.provenance import CLI_LAYER, CliArgs, Origin, Resolved, Setting
from gearshift.launcher.config.schema import model_name
from gearshift.launcher.plan import auto, ladder, target
from gearshift.launcher.plan.ladder import Step, choose_step
from gearshift.launcher.plan.target import MARGIN, MEASURED, UNCOMPILED, Described
from gearshift.launcher.run import affinity
from gearshift.launcher.run_folder.resume_rules import decide
from gearshift.launcher.run_folder.run_plan import RunPlan
from gearshift.launcher.stages import pipeline
from gearshift.training.logging.encoding import amount, duration, size

if TYPE_CHECKING:
    from gearshift.launcher.plan.plan import Plan
    from gearshift.launcher.plan.time import Seconds

_NEXT_LINE = f"\n{'':13}"
"""Below the facts, which are in a column."""


def main(command_line: CommandLine) -> int:
    """Print the plan, of staged runs one per stage, and what fits if it does not.

    Raises SettingsError.
    """
    diagnostics = list(command_line.diagnostics)
    described = target.describe(command_line.values, machine.detect_machine(), diagnostics)
    prepared: list[CliArgs] = []

    def prepare(args: CliArgs, out: Path | None) -> RunPlan:
        choice = selection.choose(args)
        for stage in selection.declared_stages(choice.family):
            if stage.name == choice.stage and stage.loads is not None:
                # The first weights of a later stage alone need not exist.
                any_run = Setting("RUN", Origin(CLI_LAYER, "any run: a plan reads no weights"))
                args = replace(args, filled={stage.loads: any_run, **args.filled})
        plan = RunPlan(resolve_with(described, args, ()), out=out, name="plan")
        prepared.append(args)
        return plan

    parts = pipeline.runs_of(pipeline.prepare(command_line.args, None, diagnostics, prepare))
    affinity.limit_spinning(environment.variables())  # before torch is imported
    contents = {}
    texts = []
    for args, (name, title, part) in zip(prepared, parts, strict=True):
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
    settings = resolved.settings
    values = dict(resolved.values)
    # A plan reads no weights: the first ones of a stage need not exist.
    for stage in selection.declared_stages(settings.model.family):
        if stage.loads and stage.name in settings.stages:
            values[stage.loads] = replace(values[stage.loads], value=None)
    return replace(resolved, values=values)


def _planned(
    described: Described, args: CliArgs, resolved: Resolved
) -> tuple[Resolved, Plan, list[Step]]:
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


def _as_json(plan: Plan, steps: Sequence[Step]) -> dict[str, Any]:
    take = choose_step(steps)
    rungs = []
    for step in steps:
        facts = {
            "name": step.name,
            "set": step.sets,
            "effect": step.effect,
            "relative_time": step.plan.cost / plan.cost,
            "take": step is take,
        }
        rungs.append(facts | step.plan.as_json())
    return plan.as_json() | {"advice": [r for r in rungs if r["take"]], "rungs": rungs}


def _render(resolved: Resolved, plan: Plan, steps: Sequence[Step], args: CliArgs) -> str:
    """The plan for people; `args` are those of the command."""
    parts = [_head(resolved, plan), _memory(plan), [_verdict(plan)]]
    take = choose_step(steps)
    if steps:
        parts.append(_ladder(plan, steps, take))
    if take is not None:
        command = shlex.join(arguments(args.with_sets(take.sets)))
        parts.append([f"  {PROGRAM} {command}    ({take.plan.needs})"])
    return "\n\n".join("\n".join(lines) for lines in parts)


def _head(resolved: Resolved, plan: Plan) -> list[str]:
    """What is trained, and its numbers but for memory."""
    settings = resolved.settings
    target = plan.target
    trace = plan.trace
    model = f"{model_name(settings.model)}, {plan.parameters:,} parameters"
    if trace.trainable != plan.parameters:
        model += f", {trace.trainable:,} of them trained"
    ranks = counted(target.ranks_per_node, "rank")
    if target.nodes > 1:
        ranks = f"{counted(target.nodes, 'node')} × {ranks}"
    engine = [f"{plan.engine} on {ranks}, {target.device}"]
    if resolved.chosen is not None:
        engine += [resolved.chosen.line, *resolved.chosen.others]
    facts = {
        "model": model,
        "mode": f"{settings.mode}, {settings.precision}",
        "engine": _NEXT_LINE.join(engine),
        "step": resolved.batching,
        "operations": f"{amount(trace.flops * target.ranks)}FLOP per step",
        "traffic": f"{size(plan.placed.sent_bytes)} sent per rank and step",
        "checkpoint": size(plan.checkpoint_bytes),
        "length": counted(plan.steps, "step"),
        "time": _time(plan.seconds),
    }
    lines = [f"{name:<13}{fact!s}" for name, fact in facts.items()]
    if plan.untraced is not None:
        lines.append(f"basis        {MEASURED}: {plan.untraced}")
    if plan.is_compiled:
        lines.append(f"basis        {UNCOMPILED}")
    return lines


def _memory(plan: Plan) -> list[str]:
    """The peak of a rank by kind, and that of a node."""
    total = plan.device_bytes
    lines = [f"peak of a rank     {size(total):>10}"]
    for kind, held in plan.device.items():
        name = kind.name.lower()
        share = held / max(total, 1)
        lines.append(f"  {name:<16} {size(held):>10}  {share:>4.0%}")
    host = f"host, each node    {size(plan.host_bytes):>10}"
    if plan.target.ram_bytes:
        host += f"  of {size(plan.target.ram_bytes)}"
    return [*lines, host]


def _verdict(plan: Plan) -> str:
    if plan.fits:
        return f"fits: {plan.needs}"
    if plan.fits is None:
        advice = "say how much there is with  --gpu-memory SIZE  or  --ram SIZE"
        return f"needs {plan.needs}; {advice}"
    free = " that other processes, the CUDA context and NCCL leave"
    if plan.is_host_bound:
        free = f", of which {MARGIN:.0%} stay free"
    return f"does not fit: {plan.needs}{free}"


def _ladder(plan: Plan, steps: Sequence[Step], take: Step | None) -> list[str]:
    """The steps of the ladder, with a mark at the one to `take`."""
    lines = ["  ladder                         rank       host   time"]
    for step in steps:
        rung = step.plan
        mark = ">" if step is take else " "
        rank = size(rung.device_bytes)
        host = size(rung.host_bytes)
        time = rung.cost / plan.cost
        notes = step.effect
        if rung.fits is not False:
            notes = f"fits, {notes}" if notes else "fits"
        line = f"{mark} {step.name:<25}{rank:>10} {host:>10} {time:>6.2f}  {notes}"
        lines.append(line.rstrip())
    return lines


def _time(seconds: Seconds) -> str:
    parts = []
    for value, unit in (
        (seconds.step, "per step"),
        (seconds.epoch, "per epoch"),
        (seconds.run, "for the run"),
    ):
        if value is None:
            return seconds.basis
        parts.append(f"{_duration(value)} {unit}")
    least = "at least " if seconds.is_least else ""
    return f"{least}{', '.join(parts)} ({seconds.basis})"


def _duration(seconds: float) -> str:
    if seconds >= 1:
        return duration(seconds)
    return f"{1000 * seconds:.3g} ms"
