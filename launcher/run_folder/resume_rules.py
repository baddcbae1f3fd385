"""What a resumed run does: which settings may change, and what --reset each of them needs."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from gearshift.launcher.base.diagnostics import PROGRAM, Diagnostic, SettingsError, plain, unknown
from gearshift.launcher.config import errors, paths, provenance, resumed_settings, selection
from gearshift.launcher.config.machine import Machine
from gearshift.launcher.config.provenance import Chosen, CliArgs, ResetPart, Resolved
from gearshift.launcher.config.resolve import resolve
from gearshift.launcher.config.schema import PRETRAINED, model_name, setting_infos
from gearshift.launcher.run_folder import checkpoint_search, run_folder
from gearshift.launcher.run_folder.checkpoint_search import ResumableRun, SavedCheckpoint
from gearshift.launcher.run_folder.run_plan import ResumeRequest, RunPlan
from gearshift.training import train_plan
from gearshift.training.optim.schedule import warmup_steps

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
LENGTH = ("train.epochs", "train.max_steps")
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
    run = None
    base = None
    wrong = [part for part in args.reset if part not in PARTS]
    diagnostics = [unknown("--reset", part, PARTS, where=f"--reset {part}") for part in wrong]
    if args.resume is None:
        part = args.reset[0]
        diagnostics.append(
            Diagnostic("--reset requires --resume", value=part, where=f"--reset {part}")
        )
    try:
        if args.resume is not None and (run := checkpoint_search.find(args, out)) is not None:
            layers, _ = selection.read_user(args)  # as given now, not those of the run
            known = resumed_settings.read(run.folder)
            key = "model.family"
            family = known.entries["model.family"].value
            given = selection.highest(layers).get(key)
            if given is not None and given.value != family:
                message = f"model {given.value} differs from {family}, used by {run.folder}"
                parts = {
                    "where": given.origin.where,
                    "allowed": f"{family}; or a new run, without --resume",
                }
                raise SettingsError.of(message, key=key, value=given.value, **parts)
            base = known
    except SettingsError as error:
        diagnostics += error.diagnostics
    try:
        resolved = resolve(args, machine, world_size, base, chosen)
    except SettingsError as error:
        raise SettingsError([*diagnostics, *error.diagnostics]) from None
    if run is not None and base is not None:
        return _resumed(args, out, resolved, run, base.settings, diagnostics)
    if diagnostics:
        raise SettingsError(diagnostics)
    option = f"{args.resume_option} {args.resume}"
    if out is not None:
        # The same for all ranks: under torchrun some check before rank 0 created the folder.
        line = f"{option}: {out} has no checkpoint yet; starting a new run there"
        return RunPlan(resolved, ResumeRequest(out), line)
    model = model_name(resolved.settings.model)
    mode = resolved.settings.mode
    return RunPlan(
        resolved, line=f"{option}: no run of {model}, mode {mode}, to resume; starting a new run"
    )


def _resumed(
    args: CliArgs,
    out: Path | None,
    resolved: Resolved,
    run: ResumableRun,
    settings: Mapping[str, Any],
    diagnostics: list[Diagnostic],
) -> RunPlan:
    checkpoint = run.checkpoint
    folder = run.folder
    result = run.result or {}
    changed = differences(
        settings if checkpoint is None else checkpoint.settings, resolved, checkpoint
    )
    is_left = not run.is_completed or "data" in args.reset
    is_left |= run.requested_step not in (None, checkpoint_search.newest_step(folder))
    if not is_left and any(
        change.key in LENGTH or change.key.startswith("stop.") for change in changed
    ):
        train = resolved.settings.train
        stop = resolved.settings.stop.after
        limits = [(train.epochs, "epochs"), (train.max_steps, "steps")]
        limits += [(stop, "steps")] if isinstance(stop, int) else []
        is_left = all(limit is None or limit > (result.get(unit) or 0) for limit, unit in limits)
        is_left |= (folder / run_folder.EXPERIENCES).exists()
    if not is_left:  # the new length changes nothing: it needs no --reset
        changed = [change for change in changed if change.key not in LENGTH]
    if checkpoint is not None:
        diagnostics += errors_of(
            changed, args.reset, resolved, f"{folder} until step {checkpoint.step}"
        )
    elif run.is_completed and (args.reset or is_left):
        message = f"{folder} was completed, and has no checkpoint left to train on from"
        where = f"{args.resume_option} {args.resume}"
        fix = f"{PROGRAM} --config {shlex.quote(str(folder / run_folder.SETTINGS))}"
        diagnostics.append(Diagnostic(message, value=str(folder), where=where, fix=fix))
    if diagnostics:
        raise SettingsError(diagnostics)
    reset = [part for part in PARTS if part in args.reset]
    lines = (
        [] if checkpoint is None and not run.is_completed else [change.line for change in changed]
    )
    request = ResumeRequest(folder, run.requested_step, reset, lines)
    if not is_left:
        steps = result.get("steps") or 0
        line = f"nothing to do: {folder} was completed at step {steps}"
        if checkpoint is not None:
            words = f"{PROGRAM} resume {shlex.quote(str(folder))} --max-steps {2 * steps} --reset schedule"
            stops = [
                key for key in ("stop.after", "stop.at") if resolved.values[key].value is not None
            ]
            line += "; to train longer: " + " ".join(
                [words, *(f"--set {key}=null" for key in stops)]
            )
        left = {"folder": str(folder), **result, "reason": "nothing to do"}
        return RunPlan(resolved, request, line, left)
    line = f"{folder} has no checkpoint yet; restarting from the beginning"
    if checkpoint is not None:
        line = f"resuming {folder} from step {checkpoint.step}"
        if out is not None and out.resolve() != folder.resolve():
            line = f"forking {folder} at step {checkpoint.step} into {out}"
        line = "; ".join([line, *(RESET_EFFECTS[part] for part in reset)])
    return RunPlan(resolved, request, line)


def rule_of(key: str) -> Rule:
    """The rule for a change of the setting `key`. Raises ValueError without a rule."""
    pairs = ((start, rule) for rule, starts in RULES.items() for start in starts)
    return max((len(s), rule) for s, rule in pairs if key == s or key.startswith(f"{s}."))[1]


def differences(
    before: Mapping[str, Any], resolved: Resolved, checkpoint: SavedCheckpoint | None = None
) -> list[SettingChange]:
    """The settings that differ from `before`, in the order of declaration.

    A setting missing in `before` counts only if the user set it; another path of the same file or folder
    is no difference. A change is free, whatever its rule, if what it decides stays, or the ranks compare it:
    the weights of the checkpoint's base, and moved data. Reads the disk.
    """
    changes = []
    values = resolved.values
    now = {key: setting.value for key, setting in values.items()}
    free = {
        stage.loads for stage in selection.declared_stages(now["model.family"])
    }  # it has these weights
    free = free if now["mode"] == provenance.STAGED_MODE else set()
    if checkpoint is not None and checkpoint.base is not None:
        free.add(PRETRAINED)
    for key, leaf in setting_infos(resolved.settings.model.family).items():
        setting = values[key]
        old = before.get(key, leaf.default)
        if key == "train.epochs" and setting.value is None and setting.replaced:
            continue  # follows from train.max_steps
        if key not in before and key not in resolved.keys.decided:
            continue
        if setting.value != old and not paths.is_same(key, old, setting.value, values):
            rule = rule_of(key)
            is_free = key in free or (
                rule == "data" and paths.has_moved(key, old, setting.value, values)
            )
            if key in _RATES and not is_free:
                is_free = _has_same_rates(before, now, checkpoint or SavedCheckpoint(0, {}))
            changes.append(SettingChange(key, old, setting.value, "free" if is_free else rule))
    return changes


def _has_same_rates(
    before: Mapping[str, Any], now: Mapping[str, Any], checkpoint: SavedCheckpoint
) -> bool:
    """Whether the steps up to the checkpoint have the same learning rates by both settings.

    They do if both keep the peak after as many steps of warm-up, as wsd does until its decay.
    """
    warmups = set()
    names = set()
    per_epoch = checkpoint.steps_per_epoch
    starts = checkpoint.starts
    for settings in (before, now):
        name, epochs, max_steps, cap = map(
            settings.get, ("schedule.name", *LENGTH, "schedule.warmup_cap")
        )
        warmup = settings.get("schedule.warmup", 0)
        is_fixed = name != "wsd" and isinstance(warmup, int) and not isinstance(cap, str)
        if name not in ("constant", "plateau", "wsd") or (per_epoch is None and not is_fixed):
            return False
        total = train_plan.total_steps(epochs, max_steps, per_epoch or 1, starts.data)
        steps = warmup_steps(warmup, cap, per_epoch or 1, max(1, total - starts.schedule))
        if name == "wsd":
            decay = train_plan.decay_start(
                settings["schedule.decay"], total, per_epoch or 1, starts.schedule
            )
            if checkpoint.step > max(starts.schedule + steps, decay):
                return False
        warmups.add(steps)
        names.add(name)
    return len(warmups) == 1 and (len(names) == 1 or "plateau" not in names)


def errors_of(
    changes: Sequence[SettingChange], reset: Collection[str], resolved: Resolved, run: str
) -> Iterator[Diagnostic]:
    """Errors for changes without their --reset; `run` names the run and the step it reached."""
    for change in changes:
        if change.rule == "free" or change.rule in reset:
            continue
        name = errors.display_name(change.key)
        new = plain(change.new)
        old = plain(change.old)
        allowed = f"{old}; or a new run, without --resume"
        fix = None
        if change.rule != "never":
            fix = f"--reset {change.rule}  ({RESET_EFFECTS[change.rule]})"
            allowed = f"{old}; or another value with  --reset {change.rule}"
        message = f"{name} {new} differs from {old}, used by {run}"
        yield errors.about(resolved.values, change.key, message, allowed=allowed, fix=fix)
