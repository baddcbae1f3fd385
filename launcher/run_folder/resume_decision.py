"""The decision of a start: its settings, and the run to resume."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.base.diagnostics import PROGRAM, Diagnostic, SettingsError
from launcher.config import errors
from launcher.config.machine import Machine
from launcher.config.parse import read
from launcher.config.presets import TASK_FOLDER
from launcher.config.provenance import CLI_LAYER, FILES_LAYER, Chosen, CliArgs, Resolved
from launcher.config.resolve import resolve
from launcher.config.schema import model_name
from launcher.run_folder import checkpoint_search, experiences, resume_rules, run_folder
from launcher.run_folder.checkpoint_search import ResumableRun, ResumeRequest
from launcher.run_folder.resume_rules import SettingChange
from training.callbacks.base import Outcome

if TYPE_CHECKING:
    from launcher.config.resumed_settings import Base


@dataclass(frozen=True)
class NothingLeft:
    """A run that was completed before."""

    line: str
    """The message for the user."""
    outcome: Mapping[str, Any]
    """The fields of training.callbacks.base.Outcome except the exit code."""


@dataclass(frozen=True)
class Decision:
    """Settings and resumed run of a start; nothing has been written."""

    resolved: Resolved
    resume: ResumeRequest | None = None
    """What the ranks resume from."""
    found: ResumableRun | None = None
    """The run to resume; None: a new run."""
    line: str | None = None
    """The message about the resumed run; None: without --resume."""
    nothing_left: NothingLeft | None = None
    """The run was completed before, and its new settings do not extend it."""


def decide(
    args: CliArgs,
    out: Path | None,
    machine: Machine,
    world_size: int | None = None,
    chosen: Chosen | None = None,
) -> Decision:
    """Decide what a start does, from settings files and JSON only.

    `world_size` and `chosen` as for `resolve`. Raises SettingsError with all errors.
    """
    diagnostics = list(_misplaced(args))
    run, base = None, None
    if args.resume is not None:
        try:
            run = checkpoint_search.find(args, out)
            base = None if run is None else _base(run, args)
        except SettingsError as error:
            diagnostics += error.diagnostics
    try:
        resolved = resolve(args, machine, world_size, base, chosen)
    except SettingsError as error:
        raise SettingsError([*diagnostics, *error.diagnostics]) from None
    if run is None or base is None:
        if diagnostics:
            raise SettingsError(diagnostics)
        return _new(args, out, resolved)
    return _resumed(args, out, resolved, run, base, diagnostics)


def _misplaced(args: CliArgs) -> Iterator[Diagnostic]:
    yield from resume_rules.unknown_parts(args.reset)
    if args.reset and args.resume is None:
        yield Diagnostic(
            "--reset requires --resume",
            value=args.reset[0],
            where=f"--reset {args.reset[0]}",
            allowed="with --resume auto|DIR|STEP",
        )


def _base(run: ResumableRun, args: CliArgs) -> Base:
    from launcher.config import resumed_settings  # for the runs that resume one

    choices = read(args).entries()  # as given now, not those of the run
    moved = choices.get(TASK_FOLDER)
    base = resumed_settings.read(run.folder, moved and moved.value)
    family = base.entries["model.family"].value
    given_family = choices.get("model.family")
    if given_family is not None and given_family.value != family:
        raise SettingsError.of(
            f"model {given_family.value} differs from {family}, used by {run.folder}",
            key="model.family",
            value=given_family.value,
            where=given_family.origin.where,
            allowed=f"{family}; or a new run, without --resume",
        )
    return base


def _new(args: CliArgs, out: Path | None, resolved: Resolved) -> Decision:
    if args.resume is None:
        return Decision(resolved)
    option = f"{args.resume_option} {args.resume}"
    if out is not None:
        # The same for all ranks: under torchrun some check before rank 0 created the folder.
        line = f"{option}: {out} has no checkpoint yet; starting a new run there"
        return Decision(resolved, ResumeRequest(out), None, line)
    settings = resolved.settings
    model = model_name(settings.model)
    line = f"{option}: no run of {model}, mode {settings.mode}, to resume; starting a new run"
    return Decision(resolved, None, None, line)


def _resumed(
    args: CliArgs,
    out: Path | None,
    resolved: Resolved,
    old_run: ResumableRun,
    base: Base,
    diagnostics: list[Diagnostic],
) -> Decision:
    before = base.settings
    if old_run.checkpoint is not None and old_run.checkpoint.settings is not None:
        before = dict(old_run.checkpoint.settings)
    checked = () if old_run.checkpoint is None else old_run.checkpoint.checked
    changed = resume_rules.differences(before, resolved, checked)
    end = _end_of_completed(old_run, resolved, args.reset)
    if end is not None:  # the new length changes nothing: it needs no --reset
        changed = [change for change in changed if change.key not in resume_rules.LENGTH]
    if old_run.checkpoint is not None:
        run = resume_rules.describe_run(old_run.folder, old_run.checkpoint.step)
        diagnostics += resume_rules.diagnostics(changed, args.reset, resolved, run)
    elif old_run.is_completed and (args.reset or _gives_more(changed)):
        diagnostics.append(_lost(old_run, args))
    elif not old_run.is_completed:
        changed = []
    if diagnostics:
        raise SettingsError(diagnostics)
    parts = [part for part in resume_rules.PARTS if part in args.reset]
    notes = resume_rules.rounding_notes(changed, resolved)
    changes = [*(difference.line for difference in changed), *notes]
    request = ResumeRequest(old_run.folder, old_run.requested_step, parts, changes)
    nothing_left = _nothing_left(old_run, changed, resolved, args.reset, end)
    line = _line(old_run, out, request) + _branch(changed, args.reset)
    return Decision(resolved, request, old_run, line, nothing_left)


def _line(run: ResumableRun, out: Path | None, request: ResumeRequest) -> str:
    if run.checkpoint is None:
        return f"{run.folder} has no checkpoint yet; restarting from the beginning"
    line = f"resuming {run.folder} from step {run.checkpoint.step}"
    if out is not None and not checkpoint_search.is_same(out, run.folder):
        line = f"forking {run.folder} at step {run.checkpoint.step} into {out}"
    return line + "".join(f"; {resume_rules.RESET_EFFECTS[part]}" for part in request.reset)


def _branch(changed: Sequence[SettingChange], reset: Sequence[str]) -> str:
    """What another learning rate changes; empty: there is none, or its schedule restarts."""
    peaks = [difference for difference in changed if difference.key == "optim.lr"]
    if not peaks or "schedule" in reset:
        return ""
    return f"; {peaks[0].line}, at the same place of the schedule"


def _nothing_left(
    run: ResumableRun,
    changed: Sequence[SettingChange],
    resolved: Resolved,
    reset: Sequence[str],
    end: End | None,
) -> NothingLeft | None:
    """The message about a completed run that the new settings do not extend."""
    result = run.result
    if result is None or not run.is_completed:
        return None
    if _is_earlier(run) or "data" in reset or _gives_more(changed):
        return None
    steps = result.get("steps")
    extension = ", ".join(difference.line for difference in changed) if end is None else end.typed
    which = f", and {extension} does not extend it" if extension else ""
    longer = _longer(resolved, steps) if end is None else end.longer
    for key in (difference.key for difference in changed if end is None):
        longer += (
            f" {errors.fix_line(key, resolved.values[key].origin, resolved.values[key].value)}"
        )
    more = f"to train longer: {PROGRAM} resume {shlex.quote(str(run.folder))} {longer}"
    if run.checkpoint is None:
        more = f"it has no checkpoint left; to train again: {_again(run.folder)}"
    line = f"nothing to do: {run.folder} was completed at step {steps}{which}; {more}"
    outcome = {field.name: result.get(field.name) for field in fields(Outcome)}
    del outcome["exit_code"], outcome["fault"]  # of a completed run
    return NothingLeft(line, {**outcome, "reason": "nothing to do"})


def _is_earlier(run: ResumableRun) -> bool:
    """Whether an earlier checkpoint than the newest is requested."""
    return run.requested_step not in (None, checkpoint_search.newest_step(run.folder))


@dataclass(frozen=True)
class End:
    """A length that the user sets, and that a completed run has reached already."""

    typed: str
    """The options or lines of files that set it."""
    longer: str
    """The options that train longer."""


def _end_of_completed(run: ResumableRun, resolved: Resolved, reset: Sequence[str]) -> End | None:
    """The length that does not extend the completed run; None: it does, or none is set."""
    lengths = [
        errors.where(key, setting.origin)
        for key in resume_rules.LENGTH
        if (setting := resolved.values[key]).origin.layer in (FILES_LAYER, CLI_LAYER)
        and setting.value is not None
    ]
    result = run.result or {}
    steps, epochs, samples = (result.get(key) for key in ("steps", "epochs", "samples"))
    is_other = not run.is_completed or _is_earlier(run) or "data" in reset
    if not lengths or is_other or (run.folder / experiences.NAME).exists():
        return None
    if type(steps) is not int or not isinstance(epochs, int | float):
        return None
    max_steps, stop = resolved.settings.train.max_steps, resolved.settings.stop.after
    longer = f"--max-steps {2 * steps}"
    if isinstance(stop, int) and stop <= steps:
        longer = f"--set stop.after=null {' '.join(lengths)}"
    elif resolved.settings.train.epochs is None:
        if max_steps is None or max_steps > steps:
            return None
    elif max_steps is None or max_steps > steps:
        per_epoch = samples // resolved.batching.global_batch if type(samples) is int else 0
        if not per_epoch or steps < _steps_of_epochs(resolved, steps, epochs, per_epoch):
            return None
        passes = 2 * ceil(epochs) if max_steps is None else ceil(max_steps / per_epoch)
        longer = f"--epochs {passes}" + ("" if max_steps is None else f" --max-steps {max_steps}")
    values = {key: value.value for key, value in resolved.values.items()}
    suffix = "" if resume_rules.length_is_free(values) else " --reset schedule"
    return End(" ".join(lengths), longer + suffix)


def _steps_of_epochs(resolved: Resolved, steps: int, epochs: float, per_epoch: int) -> int:
    """The step at which `train.epochs` end in a run that had `epochs` at `steps`."""
    assert resolved.settings.train.epochs is not None
    start = steps - round(epochs * per_epoch)  # of the data order: --reset data moves it
    return start + max(1, round(resolved.settings.train.epochs * per_epoch))


def _gives_more(changed: Sequence[SettingChange]) -> bool:
    """Whether the new settings may extend a completed run."""
    keys = [difference.key for difference in changed]
    return any(key in resume_rules.LENGTH or key.startswith("stop.") for key in keys)


def _lost(run: ResumableRun, args: CliArgs) -> Diagnostic:
    """The error of extending a completed run whose checkpoints were deleted."""
    return Diagnostic(
        f"{run.folder} was completed, and has no checkpoint left to train on from",
        value=str(run.folder),
        where=f"{args.resume_option} {args.resume}",
        allowed="a run with a checkpoint",
        fix=_again(run.folder),
    )


def _again(folder: Path) -> str:
    return f"{PROGRAM} --config {shlex.quote(str(folder / run_folder.SETTINGS))}"


def _longer(resolved: Resolved, steps: object) -> str:
    values = {key: value.value for key, value in resolved.values.items()}
    for key in ("stop.after", "stop.at"):
        if values[key] is not None:
            return f"--set {key}=null"
    max_steps, epochs = values["train.max_steps"], values["train.epochs"]
    if epochs is not None:
        option = f"--epochs {2 * epochs:g}"
    if max_steps is not None and (max_steps == steps or epochs is None):
        option = f"--max-steps {2 * max_steps}"
    return option if resume_rules.length_is_free(values) else f"{option} --reset schedule"
