"""Find the run and the checkpoint named by --resume or by a command."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launcher.base.diagnostics import PROGRAM, Diagnostic, SettingsError, from_here, listed, nearest_match
from launcher.config.provenance import CliArgs
from launcher.config.schema import PRETRAINED, model_part
from launcher.config.selection import choose
from launcher.config.settings_file import read_values
from launcher.run_folder import run_folder
from launcher.run_folder.reader import InvalidRecord, RunReader
from models.catalog import FAMILIES
from training.checkpoint import base_weights, manifest
from training.checkpoint.manifest import CheckpointError, CheckpointUnreadable, read_error
from training.storage import is_file, parse_json
from training.train_plan import StartSteps

AUTO = "auto"
_ALLOWED = "auto, a run folder, one of its checkpoints, or the number of a step"
_DAMAGE = (OSError, ValueError, KeyError, TypeError, CheckpointError)


@dataclass(frozen=True)
class SavedCheckpoint:
    """A checkpoint as described by its JSON; its tensors are not read."""

    step: int
    settings: Mapping[str, Any] | None
    """All settings by dotted key; None: written by an older version."""
    checked: frozenset[str] = frozenset()
    """Settings whose new value the ranks compare with the checkpoint."""
    starts: StartSteps = field(default_factory=StartSteps)
    """The steps at which its data order and its schedule began."""
    steps_per_epoch: int | None = None
    """None: unknown, or no step was taken since the data order began."""


@dataclass(frozen=True)
class ResumableRun:
    """A run to resume."""

    folder: Path
    requested_step: int | None
    """The requested step; None: the newest intact checkpoint."""
    checkpoint: SavedCheckpoint | None
    """The checkpoint it will probably resume from; None: there is none."""
    result: Mapping[str, Any] | None
    """Its result.json; None: it has not ended."""

    @property
    def is_completed(self) -> bool:
        """Whether it trained as long as its settings say."""
        return self.result is not None and self.result.get("status") == "completed"


def unreadable(error: CheckpointError | PermissionError, where: str) -> InvalidRecord:
    """The error for a file or folder of a run that this user may not read, and which may be whole."""
    message = str(error)
    if isinstance(error, PermissionError):
        message = f"{error.filename} cannot be read: {error.strerror}"
    fix = f"chmod -R a+rX {shlex.quote(message.partition(' cannot be read')[0])}  as its owner"
    return InvalidRecord([Diagnostic(message, where=where, fix=fix)])


def find(args: CliArgs, out: Path | None) -> ResumableRun | None:
    """The run to resume; None: `auto` found none, and a new run starts.

    Reads JSON and settings files only. Raises SettingsError.
    """
    argument = args.resume or AUTO
    where, step = f"{args.resume_option} {argument}", None
    try:
        if argument == AUTO:
            if out is None:
                return _latest(args, where)
            run = _found(out, None, where) if run_folder.is_run_folder(out) else None
            return run if run and (run.checkpoint or run.is_completed) else None
        path = Path(argument)
        if argument.isdigit():
            path, step = out or next(iter(newest(run_folder.SETTINGS)), run_folder.PARENT), int(argument)
        folder, checkpoint = around(path)
        if folder is None:
            raise no_run(path, where, "resume")
        if checkpoint is not None:
            step = manifest.step_of(checkpoint.resolve().name)
        return _found(folder, step, where)
    except PermissionError as error:
        raise unreadable(error, where) from error


def around(path: Path) -> tuple[Path | None, Path | None]:
    """The run folder at or around `path`, and `path` if it is a checkpoint. Reads the disk."""
    folder, checkpoint = path, None
    if manifest.step_of(path.resolve().name) is not None or is_file(path / manifest.NAME):
        # The links last and best are in the run folder itself.
        folder = path.parent if path.is_symlink() else Path(from_here(path.absolute().parent.parent))
        checkpoint = path
    return folder if run_folder.is_run_folder(folder) else None, checkpoint


def newest_step(folder: Path) -> int | None:
    """The step of the newest checkpoint with intact JSON; None: there is none, or this user may
    not read it. Reads the disk."""
    with suppress(CheckpointUnreadable, PermissionError):
        newest = _newest_intact(folder)
        return None if newest is None else newest.step
    return None


def _latest(args: CliArgs, where: str) -> ResumableRun | None:
    """The newest incomplete run of the same model and mode with a checkpoint."""
    choice = choose(args)
    if choice.diagnostics:
        return None
    wanted = (choice.family, choice.model, choice.mode)
    for folder in newest(run_folder.SETTINGS):
        try:
            values = read_values(folder / run_folder.SETTINGS)
            if (*model_of(values), values.get("mode")) != wanted:
                continue
            run = _found(folder, None, where)
        except InvalidRecord:
            raise
        except SettingsError:
            continue
        if run.checkpoint is not None and not run.is_completed:
            return run
    return None


def model_of(values: Mapping[str, Any]) -> tuple[object, object]:
    """The family in settings.yaml, and the name of its model."""
    family, size, pretrained = map(values.get, ("model.family", "model.size", PRETRAINED))
    return family, model_part(family, size, pretrained) if family in FAMILIES else size


def newest(*files: str, parent: Path = run_folder.PARENT) -> list[Path]:
    """The folders in runs/ that contain one of `files`, the last started or resumed first."""
    files_found = (path for file in files for path in parent.glob(f"*/{file}"))
    times = sorted(((path.stat().st_mtime_ns, path.parent) for path in files_found), reverse=True)
    return [folder for _, folder in times]


def _found(folder: Path, step: int | None, where: str) -> ResumableRun:
    try:
        checkpoint = _newest_intact(folder) if step is None else _checkpoint_at(folder, step, where)
    except CheckpointUnreadable as error:
        raise unreadable(error, where) from error
    if checkpoint is None and (saved := checkpoints(folder)):
        _checkpoint_at(folder, max(saved), where)  # raises with the reason
    return ResumableRun(folder, step, checkpoint, RunReader(folder).check())


def _checkpoint_at(folder: Path, step: int, where: str) -> SavedCheckpoint:
    saved = checkpoints(folder)
    if step not in saved:
        message, parts = f"{folder} has no checkpoint of step {step}", {"allowed": "a run with a checkpoint"}
        if saved:
            nearest = min(reversed(saved), key=lambda other: abs(other - step))
            fix = f"{PROGRAM} resume {shlex.quote(str(saved[nearest]))}"
            allowed = listed([*map(str, saved)], "resume RUN")
            parts = {"allowed": allowed, "did_you_mean": str(nearest), "fix": fix}
        raise SettingsError.of(message, value=step, where=where, **parts)
    try:
        return _read(saved[step], step)
    except CheckpointUnreadable:
        raise
    except _DAMAGE as error:
        message = f"cannot use the checkpoint of step {step}: {error}"
        raise SettingsError.of(message, value=step, where=where, allowed=_ALLOWED) from error


def _newest_intact(folder: Path) -> SavedCheckpoint | None:
    """The newest checkpoint of a run whose JSON is intact. Raises CheckpointUnreadable."""
    for step, checkpoint in reversed(checkpoints(folder).items()):
        try:
            return _read(checkpoint, step)
        except CheckpointUnreadable:
            raise
        except _DAMAGE:
            continue  # the ranks report what is damaged
    return None


def _read(checkpoint: Path, step: int) -> SavedCheckpoint:
    files = manifest.read(checkpoint).files
    manifest.check_files(checkpoint, (file for file in files if file.name == manifest.STATE))
    path = checkpoint / manifest.STATE
    try:
        content = path.read_bytes()
    except OSError as error:
        raise read_error(path, error) from error
    try:
        facts = parse_json(content)["facts"]
        settings = facts.get("settings")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged: {error!r}") from error
    if settings is not None and not isinstance(settings, dict):
        raise CheckpointError(f"{path} has no settings")
    checked = frozenset({PRETRAINED} if base_weights.FACT in facts else ())
    starts, epoch = StartSteps(**facts.get("starts", {})), facts.get("epoch")
    per_epoch = round((step - starts.data) / epoch) if epoch else None
    return SavedCheckpoint(step, settings, checked, starts, per_epoch)


def checkpoints(folder: Path) -> dict[int, Path]:
    """The checkpoint folders by step; incomplete and superseded ones have other names.

    Raises PermissionError.
    """
    by_step = {}
    home = folder / run_folder.CHECKPOINTS
    for entry in home.iterdir() if home.is_dir() else ():
        step = manifest.step_of(entry.name)
        if step is not None and entry.is_dir():
            by_step[step] = entry
    return dict(sorted(by_step.items()))


def no_run(path: Path, where: str, command: str) -> SettingsError:
    """The error for a `path`, typed for `command`, that is no run folder. Reads the disk."""
    message, nearest = f"run folder '{path}' does not exist ({path.absolute()})", None
    if path.exists():
        message = f"'{path}' is not a run folder: it has no {run_folder.ORIGINS} beside {run_folder.SETTINGS}"
    with suppress(OSError):
        beside = [p.name for p in sorted(path.parent.iterdir()) if run_folder.is_run_folder(p)]
        nearest = nearest_match(path.name, beside)
    other = None if nearest is None else path.parent / nearest
    if stages := RunReader(path).stages():
        message, nearest = f"'{path}' contains several runs, one per stage", None
        other = list(stages.values())[-1]
    fix = other and f"{PROGRAM} {command} {shlex.quote(str(other))}"
    return SettingsError.of(
        message, value=str(path), where=where, allowed=_ALLOWED, did_you_mean=nearest, fix=fix
    )
