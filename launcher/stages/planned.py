"""The runs that a plan is about: the only one, or one per stage, without running any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from launcher.base.diagnostics import Diagnostic, SettingsError
from launcher.config import selection
from launcher.config.provenance import CLI_LAYER, CliArgs, Origin, Resolved, Setting
from launcher.config.selection import choose
from launcher.plan import auto
from launcher.plan.target import Described
from launcher.run_folder.run_plan import RunPlan
from launcher.run_folder.start import decide
from launcher.stages import pipeline
from launcher.stages.pipeline import with_weights


@dataclass(frozen=True)
class PlannedRun:
    """One run to plan: the only one, or a stage."""

    args: CliArgs
    resolved: Resolved
    name: str = ""
    title: str = ""


def planned_runs(described: Described, args: CliArgs, diagnostics: list[Diagnostic]) -> list[PlannedRun]:
    """The runs to plan. Raises SettingsError with `diagnostics` and all other errors."""
    given: list[CliArgs] = []

    def prepare(args: CliArgs, out: Path | None, diagnostics: list[Diagnostic]) -> RunPlan:
        given.append(args)
        return RunPlan(resolve_with(described, args, ()), out=out, name="plan")

    stages = pipeline.prepare_pipeline(args, None, diagnostics, prepare)
    if stages is not None:
        return [
            PlannedRun(args, ready.resolved, entry.name, stages.title(entry))
            for args, (entry, ready) in zip(given, stages.left, strict=True)
        ]
    args, errors = with_weights(args)
    choice = choose(args)
    declared = {stage.name: stage for stage in selection.declared_stages(choice.family)}
    loads = declared[choice.stage].loads if choice.stage else None
    if loads is not None:  # the first weights of a later stage alone need not exist
        any_run = Setting("RUN", Origin(CLI_LAYER, "any run: a plan reads no weights"))
        args = replace(args, filled={loads: any_run, **args.filled})
    try:
        part = PlannedRun(args, resolve_with(described, args, ()))
    except SettingsError as error:
        raise SettingsError([*diagnostics, *errors, *error.diagnostics]) from None
    if wrong := [*diagnostics, *errors]:
        raise SettingsError(wrong)
    return [part]


def resolve_with(described: Described, args: CliArgs, sets: Sequence[str]) -> Resolved:
    """The settings with `sets`; those of a stage without first weights."""
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
