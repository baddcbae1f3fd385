"""The run and the checkpoint that --resume or a command names: found by their JSON, loaded by ranks."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, FiniteFloat, TypeAdapter

from gearshift.launcher.base.diagnostics import (
    PROGRAM,
    SettingsError,
    from_here,
    listed,
    nearest_match,
)
from gearshift.launcher.config.command_line import RUN_ARGUMENTS
from gearshift.launcher.config.provenance import CliArgs, Resolved
from gearshift.launcher.config.schema import PRETRAINED, model_part
from gearshift.launcher.config.selection import choose
from gearshift.launcher.config.settings_file import read_values
from gearshift.launcher.run_folder import run_folder
from gearshift.launcher.run_folder.reader import InvalidRecord, RunReader
from gearshift.launcher.run_folder.run_plan import ResumeRequest
from gearshift.models.catalog import FAMILIES
from gearshift.training.checkpoint import manifest, retention
from gearshift.training.checkpoint.manifest import (
    CheckpointDamaged,
    CheckpointError,
    CheckpointSetAside,
    CheckpointUnreadable,
)
from gearshift.training.logging import metrics
from gearshift.training.storage import Storage, is_file, storage_errors
from gearshift.training.train_plan import StartSteps

if TYPE_CHECKING:
    from gearshift.engines.base import Engine, World
    from gearshift.training.checkpoint.resume_point import ResumePoint

AUTO = "auto"


@dataclass(frozen=True)
class SavedCheckpoint:
    """What state.json tells of a checkpoint; its tensors are not read."""

    step: int
    settings: Mapping[str, Any]
    """By dotted key."""
    starts: StartSteps = field(default_factory=StartSteps)
    """The steps at which its data order and its schedule began."""
    epoch: Annotated[FiniteFloat, Field(ge=0)] | None = None
    """Since the data order began."""
    base: Mapping[str, str] | None = None
    """Its pretrained weights, which the ranks compare with those of a new folder."""

    @property
    def steps_per_epoch(self) -> int | None:
        """None: unknown, or no step was taken since the data order began."""
        return round((self.step - self.starts.data) / self.epoch) if self.epoch else None


_SAVED = TypeAdapter(SavedCheckpoint)


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


@contextmanager
def reading(where: str) -> Iterator[None]:
    """Name a file or folder of a run that this user may not read, and which may be whole."""
    try:
        yield
    except (CheckpointUnreadable, PermissionError) as error:
        message = str(error)
        if isinstance(error, PermissionError):
            message = f"{error.filename} cannot be read: {error.strerror}"
        raise InvalidRecord.of(message, where=where) from error


def find(args: CliArgs, out: Path | None) -> ResumableRun | None:
    """The run to resume; None: `auto` found none, and a new run starts.

    Reads JSON and settings files only. Raises SettingsError.
    """
    argument = args.resume or AUTO
    where = f"{args.resume_option} {argument}"
    path = Path(argument)
    step = None
    with reading(where):
        if argument == AUTO:
            if out is None:
                return _latest(args, where)
            run = _found(out, None, where) if run_folder.is_run_folder(out) else None
            return run if run and (run.checkpoint or run.is_completed) else None
        if argument.isdigit():
            path = out or next(iter(newest(run_folder.SETTINGS)), run_folder.PARENT)
            step = int(argument)
        folder, checkpoint = around(path)
        if folder is None:
            raise no_run(path, where, "resume")
        return _found(
            folder,
            step if checkpoint is None else manifest.step_of(checkpoint.resolve().name),
            where,
        )


def around(path: Path) -> tuple[Path | None, Path | None]:
    """The run folder at or around `path`, and `path` if it is a checkpoint. Reads the disk."""
    folder = path
    checkpoint = None
    if manifest.step_of(path.resolve().name) is not None or is_file(path / manifest.NAME):
        # The links last and best are in the run folder itself.
        folder = (
            path.parent if path.is_symlink() else Path(from_here(path.absolute().parent.parent))
        )
        checkpoint = path
    return folder if run_folder.is_run_folder(folder) else None, checkpoint


def newest_step(folder: Path) -> int | None:
    """The step of the newest checkpoint with intact JSON; None: there is none, or this user may
    not read it. Reads the disk."""
    with suppress(CheckpointError, PermissionError):
        newest = _newest_intact(run_folder.checkpoints(folder))
        return None if newest is None else newest.step
    return None


def _latest(args: CliArgs, where: str) -> ResumableRun | None:
    """The newest incomplete run of the same model and mode with a checkpoint."""
    choice = choose(args)
    for folder in [] if choice.diagnostics else newest(run_folder.SETTINGS):
        try:
            values = read_values(folder / run_folder.SETTINGS)
            if (*model_of(values), values.get("mode")) != (
                choice.family,
                choice.model,
                choice.mode,
            ):
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
    saved = run_folder.checkpoints(folder)
    if step is not None and step not in saved:
        message = f"{folder} has no checkpoint of step {step}"
        allowed = "a run with a checkpoint"
        if saved:
            allowed = listed([*map(str, saved)], "resume RUN")
        raise SettingsError.of(message, value=step, where=where, allowed=allowed)
    try:
        checkpoint = _newest_intact(saved if step is None else {step: saved[step]})
    except CheckpointUnreadable:
        raise
    except CheckpointError as error:
        raise SettingsError.of(
            str(error), value=step, where=where, allowed=RUN_ARGUMENTS["resume"]
        ) from error
    return ResumableRun(folder, step, checkpoint, RunReader(folder).check())


def _newest_intact(saved: dict[int, Path]) -> SavedCheckpoint | None:
    """The newest of the checkpoints whose JSON is intact; None: there are no checkpoints.

    Raises CheckpointError about the newest if all are damaged, and CheckpointUnreadable.
    """
    damage: CheckpointError | None = None
    for step, folder in reversed(saved.items()):
        try:
            files = (file for file in manifest.read(folder).files if file.name == manifest.STATE)
            manifest.check_files(folder, files)
            facts = manifest.read_state(folder / manifest.STATE).facts
            return _SAVED.validate_python({**facts, "step": step})
        except (CheckpointUnreadable, PermissionError):
            raise
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            CheckpointError,
        ) as error:  # ranks report it
            text = f"cannot use the checkpoint of step {step}: {folder}: {error}"
            damage = damage or CheckpointError(text)
    if damage is not None:
        raise damage
    return None


def no_run(path: Path, where: str, command: str) -> SettingsError:
    """The error for a `path`, typed for `command`, that is no run folder. Reads the disk."""
    allowed = RUN_ARGUMENTS.get(command, "a run folder")
    message = f"run folder '{path}' does not exist ({path.absolute()})"
    parts: dict[str, Any] = {}
    if path.exists():
        message = f"'{path}' is not a run folder: it has no {run_folder.ORIGINS} beside {run_folder.SETTINGS}"
    if stages := RunReader(path).stages():
        message = f"'{path}' contains several runs, one per stage"
        parts["fix"] = f"{PROGRAM} {command} {shlex.quote(str(list(stages.values())[-1]))}"
    else:
        with suppress(OSError):
            beside = sorted(p.name for p in path.parent.iterdir() if run_folder.is_run_folder(p))
            parts["did_you_mean"] = nearest_match(path.name, beside)
    return SettingsError.of(message, value=str(path), where=where, allowed=allowed, **parts)


def load_resume_point(
    resume: ResumeRequest,
    experience: int,
    files: Mapping[str, str] | None,
    world: World,
    folder: Path,
) -> ResumePoint | None:
    """The checkpoint to resume from; None: there is none. Collective.

    Its tensors are not verified: `restore` does as it reads them. `folder` is the one that the run
    writes to. Imports torch. Raises SettingsError if the requested
    checkpoint is damaged or missing, all are damaged, or one cannot be read for lack of permission, and
    DataError if `files`, the digests of the data, are not those of the checkpoint.
    """
    from gearshift.training.checkpoint.resume_point import ResumePoint
    from gearshift.training.checkpoint.resume_point import choose as choose_checkpoint

    try:
        with reading(f"--resume {resume.source}"):
            checkpoint, damaged = choose_checkpoint(resume.source, world, resume.step, verify=False)
        if checkpoint is None and damaged:
            reasons = "; ".join(damaged.values())
            raise CheckpointError(f"all checkpoints of {resume.source} are damaged: {reasons}")
    except CheckpointError as error:
        where = f"--resume {resume.source if resume.step is None else resume.step}"
        allowed = (
            "another step, auto for the newest intact checkpoint, or a new run with another --out"
        )
        raise SettingsError.of(
            str(error), value=str(resume.source), where=where, allowed=allowed
        ) from error
    if checkpoint is None:
        return None
    reset = frozenset(resume.reset)
    if checkpoint.facts.get("experience", 0) != experience:
        reset |= {"data", "schedule"}  # the checkpoint was saved before this experience
    is_fork = resume.until is None and resume.source.resolve() != folder.resolve()
    point = ResumePoint(checkpoint, reset, resume.changes, damaged, is_fork)
    point.check_data({"files": files})
    return point


def restore_state(
    resume: ResumeRequest, point: ResumePoint, storage: Storage, engine: Engine, *, trains: bool
) -> None:
    """Load the checkpoint `point` into `engine`; to evaluate, its averaged weights. Collective.

    Raises CheckpointError, after which the engine is of no use. A damaged checkpoint is renamed:
    the next start then takes the one before it. One that was named, is of another run or is the
    only one stays. Touches the disk.
    """
    from gearshift.engines.state import WEIGHT
    from gearshift.training.checkpoint.restore import restore
    from gearshift.training.checkpoint.tensor_file import EMA

    keeps_slots = trains and "optimizer" not in point.reset
    try:
        restore(point.checkpoint, engine, keeps_slots, WEIGHT if trains else EMA)
    except CheckpointDamaged as error:
        has_earlier = any(step < point.step for step in retention.steps(storage.path))
        is_own = resume.source.resolve() == storage.path.resolve()
        world = engine.world
        world.wait_for_all()  # all ranks have looked
        if resume.step is not None or not is_own or not has_earlier:
            raise
        if world.rank == 0:
            retention.set_aside(storage, point.step - 1, {point.step, *point.damaged})
        world.wait_for_all()
        message = f"{error}; it was renamed, and the one before it is used"
        raise CheckpointSetAside(message) from error


def prepare_folder(
    resume: ResumeRequest,
    resolved: Resolved,
    storage: Storage,
    point: ResumePoint | None,
    *,
    is_end: bool,
) -> None:
    """Rewrite the settings, remove metrics after the resume point, set later checkpoints aside.

    A fork gets the metrics before that point. `is_end`: no step is left. For rank 0. Touches the disk.
    """
    step = point.step if point else 0
    logged = resume.source / run_folder.METRICS
    if logged.exists() and not (storage.path / run_folder.METRICS).exists():
        with storage_errors(logged):
            storage.atomic_write(run_folder.METRICS, logged.read_bytes())
    run_folder.rewrite_settings(storage, resolved)
    metrics.truncate(storage, step, point.fact("evaluated_at") if point else None, is_end=is_end)
    if resume.source.resolve() == storage.path.resolve():
        retention.set_aside(storage, step, point.damaged if point else ())
