"""The run and the checkpoint that --resume or a command names, by their JSON; loaded by ranks."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, FiniteFloat, TypeAdapter

from gearshift.launcher.base.diagnostics import (
    SettingsError,
    from_here,
    listed,
    nearest_match,
    program_line,
)
from gearshift.launcher.config.provenance import CliArgs, Resolved
from gearshift.launcher.config.schema import PRETRAINED, model_part
from gearshift.launcher.config.selection import choose
from gearshift.launcher.config.settings_file import read_values
from gearshift.launcher.run_folder import lock, run_folder
from gearshift.launcher.run_folder.reader import InvalidRecord, RunReader
from gearshift.launcher.run_folder.run_folder import (
    CHECKPOINTS,
    EVALUATIONS,
    EXPORT,
    LINKS,
    METRICS,
    ORIGINS,
    PARENT,
    PREDICTIONS,
    REPORT,
    RESULT,
    SETTINGS,
    SLURM_FOLDER,
)
from gearshift.launcher.run_folder.run_plan import ResumeRequest
from gearshift.models.catalog import FAMILIES
from gearshift.training.callbacks.base import Facts
from gearshift.training.checkpoint import manifest, retention
from gearshift.training.checkpoint.manifest import (
    CheckpointDamaged,
    CheckpointError,
    CheckpointSetAside,
    CheckpointUnreadable,
)
from gearshift.training.logging import resumed_lines
from gearshift.training.storage import Storage, storage_errors
from gearshift.training.train_plan import StartSteps

if TYPE_CHECKING:
    from gearshift.engines.base import Engine, World
    from gearshift.training.checkpoint.resume_point import ResumePoint

AUTO = "auto"


@dataclass(frozen=True)
class SavedCheckpoint:
    """What state.json tells of a checkpoint; its tensors are not read."""

    step: int
    settings: Facts
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
    result: Facts | None
    """Its result.json; None: it has not ended."""

    @property
    def is_completed(self) -> bool:
        """Whether it trained as long as its settings say."""
        return (self.result or {}).get("status") == "completed"


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
            if not out:
                return _latest(args, where)
            if not run_folder.is_run_folder(out):
                return None
            run = _run_in(out, None, where)
            return run if run.checkpoint or run.is_completed else None
        # A step is one of the run in --out, or of the newest run.
        if argument.isdigit():
            path = out or next(iter(newest(SETTINGS)), PARENT)
            step = int(argument)
        folder, checkpoint = around(path)
        if not folder:
            raise no_run(path, where, "resume")
        if checkpoint:
            step = manifest.step_of(checkpoint.resolve().name)
        return _run_in(folder, step, where)


def around(path: Path) -> tuple[Path | None, Path | None]:
    """The run folder at or around `path`, and `path` if it is a checkpoint. Reads the disk."""
    folder = path
    checkpoint = None
    if manifest.step_of(path.resolve().name) is not None:
        checkpoint = path
        folder = Path(from_here(path.absolute().parent.parent))
        if path.is_symlink():  # last and best are in the run folder itself
            folder = path.parent
    return folder if run_folder.is_run_folder(folder) else None, checkpoint


def newest_step(folder: Path) -> int | None:
    """The step of the newest checkpoint with intact JSON; None: there is none, or this user may
    not read it. Reads the disk."""
    with suppress(CheckpointError, PermissionError):
        newest = _newest_intact(run_folder.checkpoints(folder))
        return newest.step if newest else None
    return None


def _latest(args: CliArgs, where: str) -> ResumableRun | None:
    """The newest incomplete run of the same model and mode with a checkpoint."""
    choice = choose(args)
    if choice.diagnostics:
        return None
    for folder in newest(SETTINGS):
        try:
            values = read_values(folder / SETTINGS)
            model = (*model_of(values), values.get("mode"))
            if model != (choice.family, choice.model, choice.mode):
                continue
            run = _run_in(folder, None, where)
        except InvalidRecord:
            raise
        except SettingsError:
            continue
        if run.checkpoint and not run.is_completed:
            return run
    return None


def model_of(values: Facts) -> tuple[object, object]:
    """The family in settings.yaml, and the name of its model."""
    family = values.get("model.family")
    size = values.get("model.size")
    if family not in FAMILIES:
        return family, size
    return family, model_part(family, size, values.get(PRETRAINED))


def newest(*files: str, parent: Path = PARENT) -> list[Path]:
    """The folders in runs/ that contain one of `files`, the last started or resumed first."""
    paths = [path for file in files for path in parent.glob(f"*/{file}")]
    paths.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
    return [path.parent for path in paths]


def _run_in(folder: Path, step: int | None, where: str) -> ResumableRun:
    saved = run_folder.checkpoints(folder)
    if step is not None:
        if step not in saved:
            raise SettingsError.of(
                f"{folder} has no checkpoint of step {step}",
                value=step,
                where=where,
                allowed=listed([*map(str, saved)], "resume RUN") or "a run with a checkpoint",
            )
        saved = {step: saved[step]}
    try:
        checkpoint = _newest_intact(saved)
    except CheckpointUnreadable:
        raise
    except CheckpointError as error:
        raise SettingsError.of(str(error), value=step, where=where) from error
    return ResumableRun(folder, step, checkpoint, RunReader(folder).check())


def _newest_intact(saved: dict[int, Path]) -> SavedCheckpoint | None:
    """The newest of the checkpoints whose JSON is intact; None: there are no checkpoints.

    Raises CheckpointError about the newest if all are damaged, and CheckpointUnreadable.
    """
    damage = None
    # The tensors are verified by the ranks, which read them anyway.
    for step, folder in reversed(saved.items()):
        try:
            files = manifest.read(folder).files
            manifest.check_files(folder, [file for file in files if file.name == manifest.STATE])
            facts = manifest.read_state(folder / manifest.STATE).facts
            return _SAVED.validate_python({**facts, "step": step})
        except (CheckpointUnreadable, PermissionError):
            raise
        except (OSError, ValueError, KeyError, TypeError, CheckpointError) as error:
            damage = damage or CheckpointError(
                f"cannot use the checkpoint of step {step}: {folder}: {error}"
            )
    if damage:
        raise damage
    return None


def no_run(path: Path, where: str, command: str) -> SettingsError:
    """The error for a `path`, typed for `command`, that is no run folder. Reads the disk."""
    from gearshift.launcher.config.commands import COMMANDS  # only needed for errors

    message = f"run folder '{path}' does not exist ({path.absolute()})"
    if path.exists():
        message = f"'{path}' is not a run folder: it has no {ORIGINS} beside {SETTINGS}"
    beside = [file.parent.name for file in path.parent.glob(f"*/{ORIGINS}")]
    similar = nearest_match(path.name, sorted(beside))
    fix = similar and shlex.quote(str(path.parent / similar))
    stages = [*RunReader(path).stages().values()]
    if stages:
        message = f"'{path}' contains several runs, one per stage"
        similar = None
        fix = program_line(command, stages[-1])
    return SettingsError.of(
        message,
        value=str(path),
        where=where,
        allowed=COMMANDS[command].allowed,
        did_you_mean=similar,
        fix=fix,
        replaces=() if stages else (str(path),),
    )


def load_resume_point(
    resume: ResumeRequest,
    experience: int,
    files: Mapping[str, str] | None,
    world: World,
    folder: Path,
) -> ResumePoint | None:
    """The checkpoint to resume from; None: there is none. Collective.

    Its tensors are not verified: `restore` does as it reads them. `folder` is the one that the run
    writes to. Imports torch. Raises SettingsError if the requested checkpoint is damaged or
    missing, all are damaged, or one cannot be read for lack of permission; and DataError if
    `files`, the digests of the data, are not those of the checkpoint.
    """
    from gearshift.training.checkpoint.resume_point import ResumePoint
    from gearshift.training.checkpoint.resume_point import choose as choose_checkpoint

    try:
        with reading(f"--resume {resume.source}"):
            checkpoint, damaged = choose_checkpoint(resume.source, world, resume.step, verify=False)
        if not checkpoint and damaged:
            reasons = "; ".join(damaged.values())
            raise CheckpointError(f"all checkpoints of {resume.source} are damaged: {reasons}")
    except CheckpointError as error:
        raise SettingsError.of(
            str(error),
            value=str(resume.source),
            where=f"--resume {resume.source if resume.step is None else resume.step}",
            allowed="another step, auto for the newest intact checkpoint, "
            "or a new run with another --out",
        ) from error
    if not checkpoint:
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
        raise CheckpointSetAside(
            f"{error}; it was renamed, and the one before it is used"
        ) from error


_CREATED = (
    CHECKPOINTS,
    *LINKS,
    RESULT,
    REPORT,
    PREDICTIONS,
    EVALUATIONS,
    SETTINGS,
    ORIGINS,
    METRICS,
    SLURM_FOLDER,
    lock.NAME,
)
"""What a fork creates itself."""


def copy_run(source: Path, folder: Path) -> None:
    """Fork: copy the files of the run in `source` to `folder`.

    Checkpoints, metrics and the result are not copied. Touches the disk. Raises OSError.
    """
    for entry in source.iterdir():
        is_export = entry.name.removeprefix(".").startswith(EXPORT)
        if entry.name in _CREATED or is_export:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.copytree(entry, folder / entry.name, symlinks=True)
        else:
            shutil.copy2(entry, folder / entry.name, follow_symlinks=False)


def prepare_folder(
    resume: ResumeRequest,
    resolved: Resolved,
    storage: Storage,
    point: ResumePoint | None,
    *,
    is_end: bool,
) -> None:
    """Rewrite the settings, remove metrics after the resume point, set later checkpoints aside.

    A fork gets the metrics before that point. `is_end`: no step is left. For rank 0. Touches the
    disk.
    """
    step = point.step if point else 0
    # A fork has no lines of its own yet.
    logged = resume.source / METRICS
    if logged.exists() and not (storage.path / METRICS).exists():
        with storage_errors(logged):
            storage.atomic_write(METRICS, logged.read_bytes())
    run_folder.rewrite_settings(storage, resolved)
    resumed_lines.truncate(
        storage, step, point.fact("evaluated_at") if point else None, is_end=is_end
    )
    if resume.source.resolve() == storage.path.resolve():
        retention.set_aside(storage, step, point.damaged if point else ())
