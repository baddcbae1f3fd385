"""The decision of a start: its settings, and the run to resume."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from launcher.base.diagnostics import PROGRAM, Diagnostic, SettingsError
from launcher.config import resumed_settings
from launcher.config.custom_task import FOLDER
from launcher.config.layers import chosen_entries
from launcher.config.machine import Machine
from launcher.config.provenance import CliArgs, Resolved
from launcher.config.resolve import resolve
from launcher.config.resumed_settings import Base
from launcher.config.schema import model_name
from launcher.resume import compatibility
from launcher.resume import find as resume
from launcher.resume.compatibility import Difference
from launcher.resume.find import Found, ResumeRequest
from launcher.run_folder import run_folder
from training.callbacks.base import Outcome


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
    found: Found | None = None
    """The run to resume; None: a new run."""
    line: str | None = None
    """The message about the resumed run; None: without --resume."""
    nothing_left: NothingLeft | None = None
    """The run was completed before, and its new settings do not extend it."""


def decide(
    args: CliArgs, out: Path | None, machine: Machine, world_size: int | None = None
) -> Decision:
    """Decide what a start does, from settings files and JSON only.

    `world_size` as for `resolve`. Raises SettingsError with all errors.
    """
    diagnostics = list(_misplaced(args))
    found, base = None, None
    if args.resume is not None:
        try:
            found = resume.find(args, out)
            base = None if found is None else _base(found, args)
        except SettingsError as error:
            diagnostics += error.diagnostics
    try:
        resolved = resolve(args, machine, world_size, base)
    except SettingsError as error:
        raise SettingsError([*diagnostics, *error.diagnostics]) from None
    if found is None or base is None:
        if diagnostics:
            raise SettingsError(diagnostics)
        return _new(args, out, resolved)
    return _resumed(args, out, resolved, found, base, diagnostics)


def _misplaced(args: CliArgs) -> Iterator[Diagnostic]:
    yield from compatibility.unknown_parts(args.reset)
    if args.reset and args.resume is None:
        yield Diagnostic(
            "--reset requires --resume",
            value=args.reset[0],
            where=f"--reset {args.reset[0]}",
            allowed="with --resume auto|DIR|STEP",
        )


def _base(found: Found, args: CliArgs) -> Base:
    choices = chosen_entries(args)  # as given now, not those of the run
    moved = choices.get(FOLDER)
    base = resumed_settings.read(found.folder, moved and moved.value)
    family = base.entries["model.family"].value
    typed = choices.get("model.family")
    if typed is not None and typed.value != family:
        raise SettingsError.of(
            f"model {typed.value} differs from {family}, used by {found.folder}",
            key="model.family",
            value=typed.value,
            where=typed.origin.where,
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
    found: Found,
    base: Base,
    diagnostics: list[Diagnostic],
) -> Decision:
    before = base.settings
    if found.checkpoint is not None and found.checkpoint.settings is not None:
        before = dict(found.checkpoint.settings)
    checked = () if found.checkpoint is None else found.checkpoint.checked
    changed = compatibility.differences(before, resolved, checked)
    if found.checkpoint is not None:
        run = compatibility.describe_run(found.folder, found.checkpoint.step)
        diagnostics += compatibility.diagnostics(changed, args.reset, resolved, run)
    elif found.is_completed and (args.reset or _gives_more(changed)):
        diagnostics.append(_lost(found, args))
    elif not found.is_completed:
        changed = []
    if diagnostics:
        raise SettingsError(diagnostics)
    parts = [part for part in compatibility.PARTS if part in args.reset]
    notes = compatibility.rounding_notes(changed, resolved)
    changes = [*(difference.line for difference in changed), *notes]
    request = ResumeRequest(found.folder, found.requested_step, parts, changes)
    nothing_left = _nothing_left(found, changed, resolved, args.reset)
    return Decision(resolved, request, found, _line(found, out, request), nothing_left)


def _line(found: Found, out: Path | None, request: ResumeRequest) -> str:
    if found.checkpoint is None:
        return f"{found.folder} has no checkpoint yet; restarting from the beginning"
    line = f"resuming {found.folder} from step {found.checkpoint.step}"
    if out is not None and not resume.is_same(out, found.folder):
        line = f"forking {found.folder} at step {found.checkpoint.step} into {out}"
    return line + "".join(f"; {compatibility.RESET_EFFECTS[part]}" for part in request.reset)


def _nothing_left(
    found: Found, changed: Sequence[Difference], resolved: Resolved, reset: Sequence[str]
) -> NothingLeft | None:
    """The message about a completed run that the new settings do not extend."""
    result = found.result
    if result is None or result.get("status") != "completed":
        return None
    is_earlier = found.requested_step not in (None, resume.newest_step(found.folder))
    if is_earlier or "data" in reset or _gives_more(changed):
        return None
    steps = result.get("steps")
    more = f"to train longer: {PROGRAM} resume {found.folder} {_longer(resolved, steps)}"
    if found.checkpoint is None:
        more = f"it has no checkpoint left; to train again: {_again(found.folder)}"
    line = f"nothing to do: {found.folder} was completed at step {steps}; {more}"
    outcome = {field.name: result.get(field.name) for field in fields(Outcome)}
    del outcome["exit_code"]
    return NothingLeft(line, {**outcome, "reason": "nothing to do"})


def _gives_more(changed: Sequence[Difference]) -> bool:
    """Whether the new settings may extend a completed run."""
    keys = [difference.key for difference in changed]
    return any(key in compatibility.LENGTH or key.startswith("stop.") for key in keys)


def _lost(found: Found, args: CliArgs) -> Diagnostic:
    """The error of extending a completed run whose checkpoints were deleted."""
    return Diagnostic(
        f"{found.folder} was completed, and has no checkpoint left to train on from",
        value=str(found.folder),
        where=f"{args.resume_option} {args.resume}",
        allowed="a run with a checkpoint",
        fix=_again(found.folder),
    )


def _again(folder: Path) -> str:
    return f"{PROGRAM} --config {folder / run_folder.SETTINGS}"


def _longer(resolved: Resolved, steps: object) -> str:
    values = {key: value.value for key, value in resolved.values.items()}
    for key in ("stop.after", "stop.at"):
        if values[key] is not None:
            return f"--set {key}=null"
    option = f"--epochs {2 * values['train.epochs']:g}"
    most = values["train.max_steps"]
    if most is not None and most == steps:
        option = f"--max-steps {2 * most}"
    return option if compatibility.length_is_free(values) else f"{option} --reset schedule"
