"""Decides what a start comes to: its settings, and the run that it goes on with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from launcher.base.diagnostics import PROGRAM, Diagnostic, SettingsError
from launcher.config import resumed_settings
from launcher.config.custom_task import FOLDER
from launcher.config.machine import Machine
from launcher.config.provenance import CliArgs, Resolved
from launcher.config.resolve import resolve
from launcher.config.resumed_settings import Base
from launcher.config.schema import model_name
from launcher.resume import compatibility
from launcher.resume import find as resume
from launcher.resume.compatibility import Difference
from launcher.resume.find import Found, ResumeRequest
from training.callbacks.base import Outcome


@dataclass(frozen=True)
class NothingLeft:
    """A run that was completed already."""

    line: str
    """What is told of it."""
    outcome: Mapping[str, Any]
    """How it ended: the fields of training.callbacks.base.Outcome, but for the exit code."""


@dataclass(frozen=True)
class Decision:
    """What a start comes to; nothing has been written."""

    resolved: Resolved
    resume: ResumeRequest | None = None
    """What the ranks are told to go on from."""
    found: Found | None = None
    """The run that goes on; None: a new one begins."""
    line: str | None = None
    """What is told of it; None: nobody asked to go on."""
    nothing_left: NothingLeft | None = None
    """The run was completed already, and nobody gave it more to do."""


def decide(
    words: CliArgs, out: Path | None, machine: Machine, world_size: int | None = None
) -> Decision:
    """All that can be decided of a start by reading settings files and JSON.

    `world_size` as for `resolve`. Raises SettingsError with all that is wrong.
    """
    diagnostics = list(_misplaced(words))
    found, base = None, None
    if words.resume is not None:
        try:
            found = resume.find(words, out)
            base = None if found is None else _base(found, words)
        except SettingsError as error:
            diagnostics += error.diagnostics
    try:
        resolved = resolve(words, machine, world_size, base)
    except SettingsError as error:
        raise SettingsError([*diagnostics, *error.diagnostics]) from None
    if found is None or base is None:
        if diagnostics:
            raise SettingsError(diagnostics)
        return _new(words, out, resolved)
    return _going_on(words, out, resolved, found, base, diagnostics)


def _misplaced(words: CliArgs) -> Iterator[Diagnostic]:
    """What is wrong with the words behind --reset."""
    yield from compatibility.unknown_parts(words.reset)
    if words.reset and words.resume is None:
        yield Diagnostic(
            f"--reset {words.reset[0]} without --resume: nothing goes on that could begin anew",
            value=words.reset[0],
            where=f"--reset {words.reset[0]}",
            allowed="beside --resume auto|DIR|STEP",
        )


def _base(found: Found, words: CliArgs) -> Base:
    choices = resume.typed_choices(words)
    moved = choices.get(FOLDER)
    base = resumed_settings.read(found.folder, moved and moved.value)
    family = base.entries["model.family"].value
    typed = choices.get("model.family")
    if typed is not None and typed.value != family:
        raise SettingsError(
            [
                Diagnostic(
                    f"model {typed.value} is not {family}, as in {found.folder}",
                    key="model.family",
                    value=typed.value,
                    where=typed.origin.where,
                    allowed=f"{family}; or a new run, without --resume",
                )
            ]
        )
    return base


def _new(words: CliArgs, out: Path | None, resolved: Resolved) -> Decision:
    if words.resume is None:
        return Decision(resolved)
    option = f"{words.resume_option} {words.resume}"
    if out is not None:
        # Told to all ranks alike, for of torchrun's some look before the first made the folder.
        line = f"{option}: {out} has no checkpoint yet; a run begins there"
        return Decision(resolved, ResumeRequest(out), None, line)
    settings = resolved.settings
    model = model_name(settings.model)
    line = f"{option}: no run of {model}, mode {settings.mode}, to go on with; a new one begins"
    return Decision(resolved, None, None, line)


def _going_on(
    words: CliArgs,
    out: Path | None,
    resolved: Resolved,
    found: Found,
    base: Base,
    diagnostics: list[Diagnostic],
) -> Decision:
    before = base.settings
    if found.kept is not None and found.kept.settings is not None:
        before = dict(found.kept.settings)
    changed = compatibility.differences(before, resolved) if found.kept is not None else []
    step = found.kept.step if found.kept is not None else None
    run = compatibility.told(found.folder, step)
    diagnostics += compatibility.diagnostics(changed, words.reset, resolved, run)
    if diagnostics:
        raise SettingsError(diagnostics)
    parts = [part for part in compatibility.PARTS if part in words.reset]
    told = ResumeRequest(found.folder, found.asked, parts, [one.line for one in changed])
    nothing_left = _nothing_left(found, changed, resolved, words.reset)
    return Decision(resolved, told, found, _line(found, out, told), nothing_left)


def _line(found: Found, out: Path | None, told: ResumeRequest) -> str:
    if found.kept is None:
        return f"{found.folder} has no checkpoint yet; it begins again"
    line = f"going on with {found.folder} after step {found.kept.step}"
    if out is not None and not resume.is_same(out, found.folder):
        line = f"going on from step {found.kept.step} of {found.folder} in {out}"
    return line + "".join(f"; {compatibility.ANEW[part]}" for part in told.reset)


def _nothing_left(
    found: Found, changed: Sequence[Difference], resolved: Resolved, reset: Sequence[str]
) -> NothingLeft | None:
    """What is told of a completed run that nobody gave more to do."""
    result = found.result
    if result is None or result.get("status") != "completed":
        return None
    is_earlier = found.asked not in (None, resume.newest_step(found.folder))
    if is_earlier or "data" in reset or any(_gives_more(one.key) for one in changed):
        return None
    steps = result.get("steps")
    line = (
        f"nothing is left to do: {found.folder} was completed at step {steps}; "
        f"to train longer: {PROGRAM} resume {found.folder} {_longer(resolved, steps)}"
    )
    told = {field.name: result.get(field.name) for field in fields(Outcome)}
    del told["exit_code"]
    return NothingLeft(line, {**told, "reason": "nothing is left to do"})


def _gives_more(key: str) -> bool:
    """Whether another value of the setting may give a completed run more to do."""
    return key in compatibility.LENGTH or key.startswith("stop.")


def _longer(resolved: Resolved, steps: object) -> str:
    """The options by which a run that was completed after `steps` trains longer."""
    values = {key: value.value for key, value in resolved.values.items()}
    for key in ("stop.after", "stop.at"):
        if values[key] is not None:
            return f"--set {key}=null"
    option = f"--epochs {2 * values['train.epochs']:g}"
    most = values["train.max_steps"]
    if most is not None and most == steps:
        option = f"--max-steps {2 * most}"
    return option if compatibility.length_is_free(values) else f"{option} --reset schedule"
