"""What a resumed run does: which settings may change, and what --reset each of them needs."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from gearshift.launcher.base.diagnostics import (
    Diagnostic,
    SettingsError,
    plain,
    program_line,
    unknown,
)
from gearshift.launcher.config import errors, paths, provenance, resumed_settings, selection
from gearshift.launcher.config.machine import Machine
from gearshift.launcher.config.provenance import Chosen, CliArgs, ResetPart, Resolved
from gearshift.launcher.config.resolve import resolve
from gearshift.launcher.config.schema import PRETRAINED, setting_infos
from gearshift.launcher.run_folder import checkpoint_search, run_folder
from gearshift.launcher.run_folder.checkpoint_search import ResumableRun, SavedCheckpoint
from gearshift.launcher.run_folder.run_plan import ResumeRequest, RunPlan
from gearshift.training import train_plan
from gearshift.training.callbacks.base import Facts
from gearshift.training.optim.schedule import LrSchedule
from gearshift.training.settings import Schedule, nested

Rule = Literal["free", "never"] | ResetPart
"""free: may change; a part: needs --reset PART; never: needs a new run."""

PARTS: tuple[ResetPart, ...] = get_args(ResetPart)
RESET_EFFECTS: Mapping[str, str] = {
    "optimizer": "optimizer state and EMA are reinitialized",
    "schedule": "the learning-rate schedule restarts",
    "data": "the data order restarts",
}
RULES: Mapping[Rule, Sequence[str]] = json.loads(
    Path(__file__).with_suffix(".json").read_text("utf-8")
)
"""Settings and sections; the longest matching key applies."""
_TIME = "train.time"
LENGTH = ("train.epochs", "train.max_steps", _TIME)
_ENDS = (*LENGTH, "stop.")
_RATES = (*LENGTH, "schedule.name", "schedule.warmup", "schedule.warmup_cap", "schedule.decay")
"""Settings that may change without --reset if the earlier steps had the same learning rates."""


@dataclass(frozen=True)
class SettingChange:
    """A setting that differs from that of the checkpoint."""

    key: str
    old: Any
    new: Any
    rule: Rule

    @property
    def line(self) -> str:
        """`engine.name ddp → zero2`."""
        return f"{self.key} {plain(self.old)} → {plain(self.new)}"


def decide(
    args: CliArgs,
    out: Path | None,
    machine: Machine,
    world_size: int | None = None,
    chosen: Chosen | None = None,
) -> RunPlan:
    """What a start does, a new run or one from a checkpoint, from settings files and JSON only.

    `world_size` and `chosen` as for `resolve`. Raises SettingsError with all errors.
    """
    if args.resume is None and not args.reset:
        return RunPlan(resolve(args, machine, world_size, None, chosen))
    # All errors of one start come together: none of them ends the search for others.
    diagnostics = [
        unknown("--reset", part, PARTS, where=f"--reset {part}")
        for part in args.reset
        if part not in PARTS
    ]
    run = None
    base = None
    if args.resume is None:
        part = args.reset[0]
        diagnostics.append(
            Diagnostic("--reset requires --resume", value=part, where=f"--reset {part}")
        )
    else:
        try:
            run = checkpoint_search.find(args, out)
            if run:
                base = _settings_of(run, args)
        except SettingsError as error:
            diagnostics += error.diagnostics
    try:
        resolved = resolve(args, machine, world_size, base, chosen)
    except SettingsError as error:
        raise SettingsError([*diagnostics, *error.diagnostics]) from None
    if run and base:
        return _resumed(args, out, resolved, run, base.settings, diagnostics)
    if diagnostics:
        raise SettingsError(diagnostics)
    # The same for all ranks: under torchrun some check before rank 0 created the folder.
    request = ResumeRequest(out) if out else None
    line = f"{args.resume_option} {args.resume}: nothing to resume yet; starting a new run"
    return RunPlan(resolved, request, line)


def _settings_of(run: ResumableRun, args: CliArgs) -> resumed_settings.Base:
    """The settings of a run to resume. Raises SettingsError, also if `args` name another family."""
    settings = resumed_settings.read(run.folder)
    key = "model.family"
    family = settings.entries[key].value
    layers, _ = selection.read_user(args)  # as given now, not those of the run
    user = selection.highest(layers).get(key)
    if user and user.value != family:
        raise SettingsError.of(
            f"model {user.value} differs from {family}, used by {run.folder}",
            key=key,
            value=user.value,
            where=user.origin.where,
            allowed=f"{family}; or a new run, without --resume",
        )
    return settings


def _resumed(
    args: CliArgs,
    out: Path | None,
    resolved: Resolved,
    run: ResumableRun,
    settings: Facts,
    diagnostics: list[Diagnostic],
) -> RunPlan:
    checkpoint = run.checkpoint
    folder = run.folder
    if checkpoint:
        settings = checkpoint.settings
    changes = differences(settings, resolved, checkpoint)
    if not run.is_completed:  # another budget stretches or compresses what is left
        changes = [
            change for change in changes if change.key != _TIME or None in (change.old, change.new)
        ]
    # Of a completed run, steps after an earlier one can be taken again.
    is_left = (
        not run.is_completed
        or "data" in args.reset
        or run.requested_step not in (None, checkpoint_search.newest_step(folder))
        or any(change.key.startswith(_ENDS) for change in changes)
    )
    if checkpoint:
        diagnostics += errors_of(
            changes, args.reset, resolved, f"{folder} until step {checkpoint.step}"
        )
    elif run.is_completed and is_left:
        diagnostics.append(
            Diagnostic(
                f"{folder} was completed, and has no checkpoint left to train on from",
                value=str(folder),
                where=f"{args.resume_option} {args.resume}",
                fix=program_line("--config", folder / run_folder.SETTINGS),
            )
        )
    if diagnostics:
        raise SettingsError(diagnostics)
    reset = [part for part in PARTS if part in args.reset]
    lines = [change.line for change in changes]
    request = ResumeRequest(folder, run.requested_step, reset, lines)
    if not is_left:
        result = run.result or {}
        steps = result.get("steps") or 0
        line = f"nothing to do: {folder} was completed at step {steps}"
        if checkpoint:
            words = ["resume", folder, "--max-steps", 2 * steps, "--reset", "schedule"]
            for key in ("stop.after", "stop.at"):
                if resolved.values[key].value is not None:
                    words += ["--set", f"{key}=null"]
            line += f"; to train longer: {program_line(*words)}"
        facts = {"folder": str(folder), **result, "reason": "nothing to do"}
        return RunPlan(resolved, request, line, facts)
    line = f"{folder} has no checkpoint yet; restarting from the beginning"
    if checkpoint:
        line = f"resuming {folder} from step {checkpoint.step}"
        if out and out.resolve() != folder.resolve():
            line = f"forking {folder} at step {checkpoint.step} into {out}"
        line = "; ".join([line, *(RESET_EFFECTS[part] for part in reset)])
    return RunPlan(resolved, request, line)


def rule_of(key: str) -> Rule:
    """The rule for a change of the setting `key`. Raises ValueError without a rule."""
    rules = {start: rule for rule, starts in RULES.items() for start in starts}
    matches = [start for start in rules if f"{key}.".startswith(f"{start}.")]
    return rules[max(matches, key=len)]


def differences(
    before: Facts, resolved: Resolved, checkpoint: SavedCheckpoint | None = None
) -> list[SettingChange]:
    """The settings that differ from `before`, in the order of declaration.

    A setting missing in `before` counts only if the user set it; another path of the same file or
    folder is no difference. A change is free, whatever its rule, if what it decides stays, or the
    ranks compare it: the weights of the checkpoint's base, and moved data. Reads the disk.
    """
    values = resolved.values
    now = {key: setting.value for key, setting in values.items()}
    free = set()
    if now["mode"] == provenance.STAGED_MODE:  # the checkpoint has the weights of earlier stages
        free = {stage.loads for stage in selection.declared_stages(now["model.family"])}
    if checkpoint and checkpoint.base is not None:
        free.add(PRETRAINED)
    changes = []
    for key, leaf in setting_infos(resolved.settings.model.family).items():
        setting = values[key]
        new = setting.value
        old = before.get(key, leaf.default)
        if key == "train.epochs" and new is None and setting.replaced:
            continue  # follows from train.max_steps
        if key not in before and key not in resolved.keys.decided:
            continue  # a setting that is newer than the run
        if new == old or paths.is_same(key, old, new, values):
            continue
        rule = "free" if key in free else rule_of(key)
        if rule == "data" and paths.has_moved(key, old, new, values):
            rule = "free"
        if key in _RATES and _has_same_rates(before, now, checkpoint or SavedCheckpoint(0, {})):
            rule = "free"
        changes.append(SettingChange(key, old, new, rule))
    return changes


def _has_same_rates(before: Facts, now: Facts, checkpoint: SavedCheckpoint) -> bool:
    """Whether the steps up to the checkpoint, and the next, have the same learning rates by both.

    A plateau may have lowered them, and a budget of time was fitted to the speed: both are unknown.
    """
    per_epoch = checkpoint.steps_per_epoch
    names = {before.get("schedule.name"), now["schedule.name"]}
    if per_epoch is None or before.get(_TIME) or now[_TIME]:
        return False
    if "plateau" in names and len(names) > 1:
        return False
    starts = checkpoint.starts
    stop = checkpoint.step + 1
    schedules = []
    for settings in (before, now):
        epochs, max_steps, _ = map(settings.get, LENGTH)
        plan = train_plan.TrainPlan(
            total_steps=train_plan.total_steps(epochs, max_steps, per_epoch, starts.data),
            steps_per_epoch=per_epoch,
            schedule_start=starts.schedule,
            global_batch=1,
            micro_batch=1,
            accumulation=1,
            world_size=1,
            units="",
        )
        stop = min(stop, plan.total_steps)  # a run that ended has no next step
        section = nested({**now, **settings})["schedule"]
        schedules.append(LrSchedule(Schedule.model_validate(section), plan))
    old, new = schedules
    steps = range(starts.schedule, stop)
    return all(old.factor(step) == new.factor(step) for step in steps)


def errors_of(
    changes: Sequence[SettingChange], reset: Collection[str], resolved: Resolved, run: str
) -> Iterator[Diagnostic]:
    """Errors for changes without their --reset; `run` names the run and the step it reached."""
    for change in changes:
        if change.rule == "free" or change.rule in reset:
            continue
        old = plain(change.old)
        allowed = f"{old}; or a new run, without --resume"
        fix = None
        hint = None
        if change.rule != "never":
            fix = f"--reset {change.rule}"
            hint = f"{fix}: {RESET_EFFECTS[change.rule]}"
            allowed = f"{old}; or another value with  {fix}"
        name = errors.display_name(change.key)
        message = f"{name} {plain(change.new)} differs from {old}, used by {run}"
        yield errors.about(
            resolved.values, change.key, message, allowed=allowed, fix=fix, hint=hint
        )
