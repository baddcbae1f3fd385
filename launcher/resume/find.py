"""Find the run and the checkpoint named by --resume or by a command."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.base.diagnostics import PROGRAM, Diagnostic, SettingsError, listed, nearest_match
from launcher.config.provenance import CliArgs, ResetPart, find_node
from launcher.config.schema import PRETRAINED, model_part
from launcher.config.selection import choose
from launcher.config.settings_file import Node, node_value, read_settings_file
from launcher.resume import moved
from launcher.run_folder import records, run_folder
from launcher.run_folder.records import InvalidRecord
from launcher.run_folder.run_folder import json_lines
from models.catalog import FAMILIES
from training.checkpoint import base_weights, checksums, manifest, retention
from training.checkpoint.manifest import CheckpointError, CheckpointUnreadable, read_error
from training.settings import nested

if TYPE_CHECKING:
    from training.checkpoint.reader import Checkpoint

AUTO = "auto"
_ALLOWED = "auto, a run folder, one of its checkpoints, or the number of a step"
_DAMAGE = (OSError, ValueError, KeyError, TypeError, RecursionError, CheckpointError)


@dataclass(frozen=True)
class SavedCheckpoint:
    """A checkpoint as described by its JSON; its tensors are not read."""

    step: int
    settings: Mapping[str, Any] | None
    """All settings by dotted key; None: written by an older version."""
    checked: frozenset[str] = frozenset()
    """Settings whose new value the ranks compare with the checkpoint."""


@dataclass(frozen=True)
class Found:
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


class UnreadableRun(SettingsError):
    """This user may not read a run or one of its checkpoints, which may be whole."""


def unreadable(error: CheckpointError | PermissionError, where: str) -> UnreadableRun:
    """The error for a file or folder of a run that this user may not read."""
    message = str(error)
    if isinstance(error, PermissionError):
        message = f"{error.filename} cannot be read: {error.strerror}"
    path = shlex.quote(message.partition(" cannot be read")[0])
    allowed = "files that this user may read; nothing was changed"
    fix = f"chmod -R a+rX {path}  as its owner"
    return UnreadableRun([Diagnostic(message, where=where, allowed=allowed, fix=fix)])


def find(args: CliArgs, out: Path | None) -> Found | None:
    """The run to resume; None: `auto` found none, and a new run starts.

    Reads JSON and settings files only. Raises SettingsError.
    """
    argument = args.resume or AUTO
    where = f"{args.resume_option} {argument}"
    try:
        return _find(args, out, argument, where)
    except PermissionError as error:
        raise unreadable(error, where) from error


def _find(args: CliArgs, out: Path | None, argument: str, where: str) -> Found | None:
    if argument == AUTO:
        return _latest(args) if out is None else _unfinished(out, where)
    if argument.isdigit():
        return _found(_run_of_step(out, where), int(argument), where)
    folder, step = _named(Path(argument), where)
    return _found(folder, step, where)


def is_same(folder: Path, other: Path) -> bool:
    """Whether two paths are the same folder. Reads the disk."""
    return folder.resolve() == other.resolve()


def newest_step(folder: Path) -> int | None:
    """The step of the newest checkpoint with intact JSON; None: there is none, or this user may
    not read it. Reads the disk."""
    with suppress(CheckpointUnreadable, PermissionError):
        return next((checkpoint.step for checkpoint in _intact_checkpoints(folder)), None)
    return None


def _unfinished(out: Path, where: str) -> Found | None:
    """The run in `out`, if it has a checkpoint or was completed."""
    if not run_folder.is_run_folder(out):
        return None
    found = _found(out, None, where)
    return found if found.checkpoint is not None or found.is_completed else None


def _latest(args: CliArgs) -> Found | None:
    """The newest incomplete run of the same model and mode with a checkpoint."""
    choice = choose(args)
    if choice.diagnostics:
        return None
    wanted = (choice.family, choice.model, choice.mode)
    for folder in newest(run_folder.SETTINGS):
        try:
            root = read_settings_file(folder / run_folder.SETTINGS)
            mode = find_node(root, "mode")
            if (*model_of(root), mode and mode.value) != wanted:
                continue
            found = _found(folder, None, f"{args.resume_option} {AUTO}")
        except (UnreadableRun, InvalidRecord):
            raise
        except SettingsError:
            continue
        if found.checkpoint is not None and not found.is_completed:
            return found
    return None


def model_of(root: Node) -> tuple[object, object]:
    """The family in settings.yaml, and the name of its model; `root` is the parsed file."""
    keys = ("model.family", "model.size", PRETRAINED)
    nodes = [find_node(root, key) for key in keys]
    family, size, pretrained = (None if node is None else node_value(node) for node in nodes)
    return family, model_part(family, size, pretrained) if family in FAMILIES else size


def newest(*files: str, parent: Path = run_folder.PARENT) -> list[Path]:
    """The folders in runs/ that contain one of `files`, the last started or resumed first."""
    found = (path for file in files for path in parent.glob(f"*/{file}"))
    times = sorted(((path.stat().st_mtime_ns, path.parent) for path in found), reverse=True)
    return [folder for _, folder in times]


def newest_saved() -> str | None:
    """The newest run in runs/ with a checkpoint. Reads the disk."""
    for folder in newest(run_folder.SETTINGS):
        with suppress(PermissionError):
            if _checkpoints(folder):
                return str(folder)
    return None


def _run_of_step(out: Path | None, where: str) -> Path:
    if out is not None:
        if not run_folder.is_run_folder(out):
            raise _error(f"{out} is not a run folder", str(out), f"{where}, --out {out}")
        return out
    runs = newest(run_folder.SETTINGS)
    if not runs:
        message = f"there is no run in {run_folder.PARENT}/ to take the checkpoint from"
        raise _error(message, where.split()[-1], where)
    return runs[0]


def _named(path: Path, where: str) -> tuple[Path, int | None]:
    """The run folder at or around `path`, and the step if `path` is a checkpoint."""
    step = manifest.step_of(path.resolve().name)
    folder = path
    if step is not None and path.is_symlink():  # best, last
        folder = path.parent
    elif step is not None:
        folder = (path if path.name else path.resolve()).parent.parent
    if run_folder.is_run_folder(folder):
        return folder, step
    nearest = nearest_match(path.name, _runs_beside(path))
    nearest = nearest and str(path.parent / nearest)
    raise _error(_no_run_text(path), str(path), where, nearest)


def _no_run_text(path: Path) -> str:
    if path.exists():
        missing = run_folder.SETTINGS
        if (path / missing).is_file():  # a file of the user
            missing = f"{run_folder.ORIGINS} beside {missing}"
        return f"'{path}' is not a run folder: it has no {missing}"
    return f"run folder '{path}' does not exist ({path.absolute()})"


def _runs_beside(path: Path) -> list[str]:
    return [entry.name for entry in _entries(path.parent) if run_folder.is_run_folder(entry)]


def _found(folder: Path, step: int | None, where: str) -> Found:
    try:
        checkpoint = (
            next(_intact_checkpoints(folder), None)
            if step is None
            else _checkpoint_at(folder, step, where)
        )
    except CheckpointUnreadable as error:
        raise unreadable(error, where) from error
    if checkpoint is None and (steps := _steps(folder)):
        _checkpoint_at(folder, steps[0], where)  # raises with the reason
    return Found(folder, step, checkpoint, records.check(folder))


def _checkpoint_at(folder: Path, step: int, where: str) -> SavedCheckpoint:
    steps = _steps(folder)
    if step not in steps:
        nearest = min(steps, key=lambda existing: abs(existing - step), default=None)
        names = listed([str(existing) for existing in sorted(steps)], "resume RUN")
        raise SettingsError.of(
            f"{folder} has no checkpoint of step {step}",
            value=step,
            where=where,
            allowed=names if steps else "a run with a checkpoint",
            did_you_mean=None if nearest is None else str(nearest),
            fix=None if nearest is None else _line(_checkpoint(folder, nearest)),
        )
    try:
        return _read(folder, step)
    except CheckpointUnreadable:
        raise
    except _DAMAGE as error:
        raise _error(f"cannot use the checkpoint of step {step}: {error}", step, where) from (error)


def _checkpoint(folder: Path, step: int) -> Path:
    return folder / run_folder.CHECKPOINTS / manifest.step_folder(step)


def _intact_checkpoints(folder: Path) -> Iterator[SavedCheckpoint]:
    """The checkpoints of a run whose JSON is intact, newest first. Raises CheckpointUnreadable."""
    for step in _steps(folder):
        try:
            yield _read(folder, step)
        except CheckpointUnreadable:
            raise
        except _DAMAGE:
            continue  # the ranks report what is damaged


def _steps(folder: Path) -> Sequence[int]:
    """The steps that have a folder, newest first."""
    return list(_checkpoints(folder))[::-1]


def _read(folder: Path, step: int) -> SavedCheckpoint:
    checkpoint = _checkpoint(folder, step)
    files = manifest.read(checkpoint).files
    checksums.check(checkpoint, tuple(file for file in files if file.name == manifest.STATE))
    try:
        content = (checkpoint / manifest.STATE).read_bytes()
    except OSError as error:
        raise read_error(checkpoint / manifest.STATE, error) from error
    try:
        facts = json.loads(content)["facts"]
        settings = facts.get("settings")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        message = f"{checkpoint / manifest.STATE} is damaged: {error!r}"
        raise CheckpointError(message) from error
    if settings is not None and not isinstance(settings, dict):
        raise CheckpointError(f"{checkpoint / manifest.STATE} has no settings")
    checked = {PRETRAINED} if base_weights.FACT in facts else ()
    return SavedCheckpoint(step, settings, frozenset(checked))


def _line(path: Path | str, command: str = "resume") -> str:
    return f"{PROGRAM} {command} {shlex.quote(str(path))}"


def _error(message: str, value: Any, where: str, nearest: str | None = None) -> SettingsError:
    fix = nearest and _line(nearest)
    return SettingsError.of(
        message, value=value, where=where, allowed=_ALLOWED, did_you_mean=nearest, fix=fix
    )


@dataclass(frozen=True)
class ResumeRequest:
    """What to resume from, for the ranks."""

    source: Path
    """The run folder with the checkpoints; the folder written to unless the run is a fork."""
    step: int | None = None
    """Only the checkpoint of this step; None: the newest intact one, or none."""
    reset: Sequence[ResetPart] = ()
    """State to reinitialize instead of restoring it."""
    changes: Sequence[str] = ()
    """Settings that differ from those of the checkpoint, one line each."""
    until: int | None = None
    """The last step of a replay; None: no replay."""

    def rewinds(self, folder: Path) -> bool:
        """Whether the run in `folder` may repeat steps with a different result."""
        requested_step = self.step is not None or bool(self.reset)
        return requested_step and self.source.resolve() == folder.resolve()

    def as_json(self) -> dict[str, Any]:
        """The fields as JSON."""
        return {**asdict(self), "source": str(self.source)}


_ALLOWED_SAVED = "a run folder, or one of its checkpoints"


@dataclass(frozen=True)
class SavedRun:
    """A run folder, or one checkpoint, given to a command."""

    folder: Path | None
    """The run folder; None: a checkpoint outside of a run folder."""
    named: Path | None
    """The checkpoint, if the user gave one."""
    checkpoints: Mapping[int, Path]
    """All checkpoints by step, the earliest first; some may be damaged."""
    pretrained: str | None = None
    """The new folder of the pretrained model; None: it has not moved."""

    @property
    def best(self) -> Path | None:
        """The checkpoint of the best evaluation; None: there is none. Reads the disk."""
        link = None if self.folder is None else self.folder / retention.BEST
        return link if link is not None and link.is_dir() else None

    def settings(self, checkpoint: Checkpoint) -> dict[str, Any] | None:
        """The settings of `checkpoint` as a tree; None: unknown.

        Older checkpoints have none: then those of the run folder. Reads the disk.
        Raises SettingsError.
        """
        settings = checkpoint.facts.get("settings")
        if isinstance(settings, dict):
            tree = nested(settings)
        elif self.folder is None:
            return None
        else:
            tree = dict(node_value(read_settings_file(self.folder / run_folder.SETTINGS)))
        model = tree["model"]
        if self.pretrained is not None:
            model = {**model, "pretrained": self.pretrained}
        if self.folder is not None and "folder" in model:
            from launcher.config import custom_task  # for the runs that train one

            place = custom_task.folder_for(model["family"], model["folder"], self.folder)
            model = {**model, "folder": place}
        return {**tree, "model": model}

    def check_pretrained(self, checkpoint: Checkpoint) -> None:
        """Check that the folder of the pretrained model exists; of a new one also its weights.

        Reads the disk. Raises SettingsError.
        """
        settings = self.settings(checkpoint) or {}
        folder = settings.get("model", {}).get("pretrained")
        if folder is not None:
            moved.check(folder, checkpoint, is_new=self.pretrained is not None)

    def restarts(self, after: int, upto: int) -> list[Restart]:
        """The resumes from checkpoints of the steps [`after`, `upto`). Reads the disk.

        Of several at one step the last counts: the results of the others were replaced.
        """
        events = json_lines(self.folder / run_folder.EVENTS) if self.folder is not None else ()
        found = {}
        for event in events:
            with suppress(KeyError, TypeError):  # of another version
                if event["kind"] == "resumed" and after <= event["step"] < upto:
                    found[event["step"]] = _restart(event["step"], event["facts"])
        return [found[step] for step in sorted(found)]


@dataclass(frozen=True)
class Restart:
    """A resume from a checkpoint by another process."""

    step: int
    writer: tuple[str, int]
    """Engine and world size of the process that wrote the checkpoint."""
    reset: tuple[ResetPart, ...]
    """State that was reinitialized."""
    changes: tuple[str, ...]


def _restart(step: int, facts: Mapping[str, Any]) -> Restart:
    writer = facts["written_by"]
    return Restart(
        step=step,
        writer=(writer["engine"], writer["world_size"]),
        reset=tuple(facts["reset"]),
        changes=tuple(facts["changes"]),
    )


def find_saved(word: str, command: str, sets: Sequence[str] = ()) -> SavedRun:
    """What `word`, typed after `command`, names; `sets` are the arguments of moved.MOVED.

    Reads the disk. Raises SettingsError where there is no run or checkpoint, none was saved, or a
    file of the run is damaged.
    """
    pretrained = moved.moved_to(sets)
    where = f"the command line: {command} {word}"
    try:
        return replace(_find_saved(Path(word), word, command, where), pretrained=pretrained)
    except PermissionError as error:
        raise unreadable(error, where) from error


def _find_saved(path: Path, word: str, command: str, where: str) -> SavedRun:
    named = path if (path / manifest.NAME).is_file() else None
    folder: Path | None = path if named is None else _run_of(path)
    if folder is not None and not run_folder.is_run_folder(folder):
        folder = None
    if folder is None and named is None:
        raise no_run(path, where, command)
    if folder is not None:
        records.check(folder)
    checkpoints = _checkpoints(folder) if folder is not None else {}
    if not checkpoints and named is None:
        message = f"{path} has no checkpoint"
        allowed = "a run with a checkpoint; see save.every and save.last"
        raise SettingsError.of(message, value=word, where=where, allowed=allowed)
    return SavedRun(folder, named, checkpoints)


def _run_of(checkpoint: Path) -> Path:
    """The run folder of a checkpoint, also of the links last and best."""
    if checkpoint.is_symlink():
        return checkpoint.parent
    return checkpoint.absolute().parent.parent


def _checkpoints(folder: Path) -> dict[int, Path]:
    """The checkpoint folders; incomplete and superseded ones have other names.

    Raises PermissionError.
    """
    found = {}
    home = folder / run_folder.CHECKPOINTS
    for entry in sorted(home.iterdir()) if home.is_dir() else ():
        step = manifest.step_of(entry.name)
        if step is not None and entry.is_dir():
            found[step] = entry
    return dict(sorted(found.items()))


def no_run(path: Path, where: str, command: str) -> SettingsError:
    """The error for a `path`, typed after `command`, that is no run folder. Reads the disk."""
    message, nearest = _no_run_text(path), nearest_match(path.name, _runs_beside(path))
    fix = nearest and _line(path.parent / nearest, command)
    if stages := stage_folders(path):
        message = f"'{path}' contains several runs, one per stage"
        nearest, fix = None, _line(list(stages.values())[-1], command)
    return SettingsError.of(
        message, value=str(path), where=where, allowed=_ALLOWED_SAVED, did_you_mean=nearest, fix=fix
    )


def _entries(folder: Path) -> Iterator[Path]:
    try:
        yield from sorted(folder.iterdir())
    except OSError:
        return


def stage_folders(folder: Path) -> dict[str, Path]:
    """The run folder of each stage of the staged run in `folder`, by name; empty: it is none.

    Reads the disk.
    """
    try:
        stages = json.loads((folder / run_folder.STAGES).read_bytes())["stages"]
        return {stage["name"]: folder / stage["folder"] for stage in stages}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
