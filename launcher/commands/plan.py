"""The command `plan`: memory, traffic and operations of a run, without running it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gearshift.launcher.base import environment, exit_codes
from gearshift.launcher.base.diagnostics import counted, plain, program_line
from gearshift.launcher.commands import output
from gearshift.launcher.config import machine, selection
from gearshift.launcher.config.argument_list import arguments
from gearshift.launcher.config.command_line import CommandLine
from gearshift.launcher.config.provenance import CLI_LAYER, CliArgs, Origin, Resolved, Setting
from gearshift.launcher.config.schema import model_name
from gearshift.launcher.plan import auto, ladder, target
from gearshift.launcher.plan.ladder import Step, choose_step
from gearshift.launcher.plan.target import MEASURED, UNCOMPILED, Described
from gearshift.launcher.run_folder.resume_rules import decide
from gearshift.launcher.run_folder.run_plan import RunPlan
from gearshift.launcher.stages import pipeline
from gearshift.training.callbacks.base import Json
from gearshift.training.logging.encoding import amount, duration, size

if TYPE_CHECKING:
    from gearshift.launcher.plan.plan import Plan, Seconds

_LADDER = "  ladder                         rank       host   time"
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
    environment.limit_spinning()  # before torch is imported
    contents: Json = {}
    for args, (name, title, part) in zip(prepared, parts, strict=True):
        if contents:
            title = f"\n{title}"
        contents[name] = _plan(command_line, described, args, part.resolved, title)
    if command_line.as_json:
        output.show(command_line, contents.get("", contents), "")
    return exit_codes.DONE


def resolve_with(described: Described, args: CliArgs, sets: Sequence[str]) -> Resolved:
    """The settings with `sets`; those of a stage without first weights. Raises SettingsError."""
    with_sets = args.with_sets(sets)

    def decided(world_size: int | None) -> Resolved:
        is_count = world_size is None and described.nodes > 1  # of the processes of a node
        if sets or is_count:  # an advice names its engine
            return decide(with_sets, None, described.machine, world_size).resolved
        return auto.decide_engine(with_sets, None, described, world_size).resolved

    resolved = decided(None)
    if described.nodes > 1:  # every node starts as many ranks
        resolved = decided(described.nodes * resolved.nproc)
    settings = resolved.settings
    values = dict(resolved.values)
    # A plan reads no weights: the first ones of a stage need not exist.
    for stage in selection.declared_stages(settings.model.family):
        if stage.loads and stage.name in settings.stages:
            values[stage.loads] = replace(values[stage.loads], value=None)
    return replace(resolved, values=values)


def _plan(
    command_line: CommandLine, described: Described, args: CliArgs, resolved: Resolved, title: str
) -> Json:
    """Plan a run, and what fits if it does not; the facts as JSON. Text is printed as it is known.

    A run of some minutes shows its plan long before the rungs of the ladder.
    """
    from gearshift.launcher.plan.plan import open_planner

    def say(*lines: str) -> None:
        if not command_line.as_json:
            output.show(command_line, None, "\n".join(lines))

    with open_planner(resolved, described) as planner:

        def with_change(change: ladder.Change) -> Resolved:
            sets = [f"{key}={plain(value)}" for key, value in change.items()]
            return resolve_with(described, args, sets)

        resolved = planner.fitted(resolved)
        plan = planner.plan(resolved)
        memory = "\n".join(_memory(plan))
        say("\n".join([title + _head(resolved, plan), "", memory, "", _verdict(plan)]))
        steps: list[Any] = []
        if plan.fits is False:
            climbed = ladder.climb(
                resolved,
                plan,
                lambda change: planner.plan(with_change(change)),
                bound_with=lambda change: planner.bound(with_change(change), plan),
            )
            for step in climbed:
                if not steps:
                    say("", _LADDER)
                steps.append(step)
                say(_rung(plan, step))
    take = choose_step(steps)
    if take:
        command = program_line(*arguments(command_line.args.with_sets(take.sets)))
        say("", f"> {take.name}:", f"  {command}    ({take.plan.needs})")
    rungs = [_as_json(step, plan) | {"take": step is take} for step in steps]
    return plan.as_json() | {"advice": [rung for rung in rungs if rung["take"]], "rungs": rungs}


def _as_json(step: Step, plan: Plan) -> Json:
    """A rung for programs, beside the `plan` of the run as given."""
    rung = step.plan
    facts = {
        "name": step.name,
        "set": step.sets,
        "effect": step.effect,
        "relative_time": None if step.is_bound else rung.cost / plan.cost,
        "bound": step.is_bound,
    }
    if not step.is_bound:
        return facts | rung.as_json()
    return facts | {
        "engine": rung.engine,
        "device_peak_bytes": {"total": rung.device_bytes},
        "host_peak_bytes": rung.host_bytes,
        "fits": False,
    }


def _head(resolved: Resolved, plan: Plan) -> str:
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
    if resolved.chosen:
        engine += [resolved.chosen.line, *resolved.chosen.others]
    length = counted(plan.steps, "step")
    if settings.train.time is not None:
        length = f"as many steps as fit into {settings.train.time}"
    facts = {
        "model": model,
        "mode": f"{settings.mode}, {settings.precision}",
        "engine": _NEXT_LINE.join(engine),
        "step": resolved.batching,
        "operations": f"{amount(trace.flops * target.ranks)}FLOP per step",
        "traffic": f"{size(plan.placed.sent_bytes)} sent per rank and step",
        "checkpoint": size(plan.checkpoint_bytes),
        "length": length,
        "time": _time(plan.seconds),
    }
    lines = [f"{name:<13}{fact!s}" for name, fact in facts.items()]
    if plan.untraced:
        lines.append(f"basis        {MEASURED}: {plan.untraced}")
    if plan.is_compiled:
        lines.append(f"basis        {UNCOMPILED}")
    return "\n".join(lines)


def _memory(plan: Plan) -> list[str]:
    """The peak of a rank by kind, and that of a node."""
    total = plan.device_bytes
    lines = [f"peak of a rank     {size(total):>10}"]
    for kind, held in plan.device.items():
        share = held / max(total, 1)
        lines.append(f"  {kind.name.lower():<16} {size(held):>10}  {share:>4.0%}")
    host = f"host, each node    {size(plan.host_bytes):>10}"
    if plan.target.ram_bytes:
        host += f"  of {size(plan.target.ram_bytes)}"
    return [*lines, host]


def _verdict(plan: Plan) -> str:
    if plan.fits is None:
        advice = "say how much there is with  --gpu-memory SIZE  or  --ram SIZE"
        return f"needs {plan.needs}; {advice}"
    return f"{'fits' if plan.fits else 'does not fit'}: {plan.needs}"


def _rung(plan: Plan, step: Step) -> str:
    """A line of the ladder, below _LADDER; `plan` is that of the run as given."""
    rung = step.plan
    rank = size(rung.device_bytes)
    host = size(rung.host_bytes)
    time = f"{rung.cost / plan.cost:.2f}"
    notes = [step.effect] if step.effect else []
    if rung.fits is not False:
        notes.insert(0, "fits")
    if step.is_bound:
        time = "–"
        notes.insert(0, "too large without activations")
    return f"  {step.name:<25}{rank:>10} {host:>10} {time:>6}  {', '.join(notes)}".rstrip()


def _time(seconds: Seconds) -> str:
    if seconds.step is None or seconds.epoch is None or seconds.run is None:
        return seconds.basis
    least = "at least " if seconds.is_least else ""
    lengths = f"{duration(seconds.epoch)} per epoch, {duration(seconds.run)} for the run"
    return f"{least}{seconds.step:.3g} s per step, {lengths} ({seconds.basis})"
