"""The command `plan`: memory, traffic and operations of a run, without running it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.base import environment
from launcher.base.diagnostics import PROGRAM, counted, plain
from launcher.commands import output
from launcher.config import machine, selection
from launcher.config.command_line import PLANNED_MACHINE, CommandLine, split_options
from launcher.config.provenance import CLI_LAYER, CliArgs, Origin, Resolved, Setting, keys_of
from launcher.config.schema import model_name
from launcher.plan import auto, ladder, target
from launcher.plan.ladder import Step, taken
from launcher.plan.target import MARGIN, MEASURED, UNCOMPILED, Described
from launcher.run import affinity
from launcher.run_folder.run_plan import RunPlan
from launcher.run_folder.start import decide
from launcher.stages import pipeline
from training.logging.quantities import amount, duration, size

if TYPE_CHECKING:
    from launcher.plan.plan import Plan
    from launcher.plan.time import Seconds


def main(command_line: CommandLine) -> int:
    """Print the plan, of staged runs one per stage, and what fits if it does not.

    Raises SettingsError.
    """
    diagnostics, given = list(command_line.diagnostics), list[CliArgs]()
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
    contents, texts, command = {}, [], partial(_run_command, command_line)
    for args, (name, title, part) in zip(given, parts, strict=True):
        resolved, plan, steps = _planned(described, args, part.resolved)
        contents[name] = _as_json(plan, steps)
        texts.append(title + _render(resolved, plan, steps, command))
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


def _render(
    resolved: Resolved, plan: Plan, steps: Sequence[Step], command: Callable[[Sequence[str]], str]
) -> str:
    """The plan for people. `command` gives the run with further settings."""
    lines = [*_head(resolved, plan), "", *_memory(plan), "", _verdict(plan)]
    if steps:
        lines += ["", *_rungs(plan, steps)]
    if (take := taken(steps)) is not None:
        lines += ["", f"  {command(take.sets)}    ({take.plan.needs})"]
    return "\n".join(lines)


def _head(resolved: Resolved, plan: Plan) -> Iterator[str]:
    settings, target = resolved.settings, plan.target
    where = f"{counted(target.nodes, 'node')} × " if target.nodes > 1 else ""
    trained = "" if plan.trace.trainable == plan.parameters else f", {plan.trace.trainable:,} of them trained"
    yield f"model        {model_name(settings.model)}, {plan.parameters:,} parameters{trained}"
    yield f"mode         {settings.mode}, {settings.precision}"
    yield (f"engine       {plan.engine} on {where}{counted(target.ranks_per_node, 'rank')}, {target.device}")
    if resolved.chosen is not None:
        yield f"             {resolved.chosen.line}"
        for other in resolved.chosen.others:
            yield f"             {other}"
    yield f"step         {resolved.batching}"
    yield f"operations   {amount(plan.trace.flops * target.ranks)}FLOP per step"
    yield f"traffic      {size(plan.placed.sent_bytes)} sent per rank and step"
    yield f"checkpoint   {size(plan.checkpoint_bytes)}"
    yield f"length       {counted(plan.steps, 'step')}"
    yield f"time         {_time(plan.seconds)}"
    if plan.untraced is not None:
        yield f"basis        {MEASURED}: {plan.untraced}"
    if plan.is_compiled:
        yield f"basis        {UNCOMPILED}"


def _time(seconds: Seconds) -> str:
    if seconds.step is None or seconds.epoch is None or seconds.run is None:
        return seconds.basis
    least = "at least " if seconds.is_least else ""
    step, epoch, run = (
        duration(each) if each >= 1 else f"{1000 * each:.3g} ms"
        for each in (seconds.step, seconds.epoch, seconds.run)
    )
    return f"{least}{step} per step, {epoch} per epoch, {run} for the run ({seconds.basis})"


def _memory(plan: Plan) -> Iterator[str]:
    whole = max(plan.device_bytes, 1)
    yield f"{'peak of a rank':<18} {size(plan.device_bytes):>10}"
    for kind, held in plan.device.items():
        yield f"  {kind.name.lower():<16} {size(held):>10}  {held / whole:>4.0%}"
    yield f"{'host, each node':<18} {size(plan.host_bytes):>10}" + (
        f"  of {size(plan.target.ram_bytes)}" if plan.target.ram_bytes else ""
    )


def _verdict(plan: Plan) -> str:
    if plan.fits:
        return f"fits: {plan.needs}"
    if plan.fits is None:
        return f"needs {plan.needs}; say how much there is with  --gpu-memory SIZE  or  --ram SIZE"
    free = f", of which {MARGIN:.0%} stay free"
    if not plan.is_host_bound:
        free = " that other processes, the CUDA context and NCCL leave"
    return f"does not fit: {plan.needs}{free}"


def _rungs(plan: Plan, steps: Sequence[Step]) -> Iterator[str]:
    """A line for each rung, with its time relative to `plan`; `>` is the one to take."""
    yield f"  {'ladder':<25}{'rank':>10} {'host':>10} {'time':>6}"
    take = taken(steps)
    for step in steps:
        marks = [*(["fits"] if step.plan.fits is not False else []), step.effect]
        mark = ">" if step is take else " "
        yield (
            f"{mark} {step.name:<25}{size(step.plan.device_bytes):>10} "
            f"{size(step.plan.host_bytes):>10} {step.plan.cost / plan.cost:>6.2f}  "
            f"{', '.join(filter(None, marks))}"
        ).rstrip()
