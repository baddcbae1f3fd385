"""The run folder: its layout, its creation, and its removal if the run did not train."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from gearshift.launcher.base import disk, temporary
from gearshift.launcher.base.diagnostics import Diagnostic, SettingsError, program_line
from gearshift.launcher.config import render
from gearshift.launcher.config.provenance import Resolved
from gearshift.launcher.config.render import ORIGINS, SETTINGS
from gearshift.launcher.run_folder import lock
from gearshift.slurm.environment import SLURM_FOLDER
from gearshift.training.checkpoint import manifest, retention
from gearshift.training.settings import TRACKERS
from gearshift.training.storage import (
    Storage,
    StorageError,
    is_file,
    open_staged,
    publish_new,
    storage_errors,
)

LOG = "log.txt"
RESULT = "result.json"
EXPERIENCES = "experiences.json"
"""In the folder of a continual run: the files of each experience."""
STAGES = "stages.json"
"""In the folder of a staged run: the names of its stages and their run folders."""
METRICS = "metrics.jsonl"
EVENTS = "events.jsonl"
EXPORT = "export-"
"""Prefix of folders with an exported model."""
EVALUATIONS = "evaluations.jsonl"
"""The results of the command `evaluate`."""
PREDICTIONS = "predictions"
"""The folder with predictions of files."""
SPLIT = "split.json"
"""The groups of each split: models/common/split.py writes it."""
SAMPLES = "samples"
BEFORE = "before"
AFTER = "after"
"""In the folder of samples: the names of the files, and facts of the event "preview"."""
CHECKPOINTS = "checkpoints"
SURROUNDINGS = "surroundings"
"""A fact of each checkpoint: packages, machine, threads and sources."""
LINKS = ("best", "last")
REPORT = "report.html"
PARENT = Path("runs")
JOB_SCRIPT = "job.sbatch"
"""In the subfolder slurm/: the script of the job, which calls functions of slurm/job.sh."""
_ALLOWED = "a new or empty folder that you may write to"
_LINK = re.compile(rf"({'|'.join(LINKS)})|\.({'|'.join(LINKS)})\.new")
_TARGET = re.compile(rf"{CHECKPOINTS}/[\w-]+")
"""The links in a run folder, with the names that they have before they are complete."""
_LEFT = re.compile(
    r"\.lock(\.[0-9a-f]{8})?|\.(settings\.yaml|origins\.json|stages\.json)\.[0-9a-f]{8}"
)
"""Names that a job, or a start that was killed, leaves in a folder without a run."""
_JOB_FILES = re.compile(r"\..*|log|next|crashes|saved|outcome\..*|generations\.jsonl|job\.sbatch")
"""Names in the subfolder slurm/."""


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run, and what is to be removed if it does not train."""

    path: Path
    created: tuple[Path, ...] = ()
    """Folders made for the run, its own first, then parents; empty: it was there, for a job."""
    is_resumed: bool = False
    """The run in it started earlier: nothing may be removed."""

    def discard(self) -> bool:
        """Remove all files of the run unless it has trained; whether they were removed.

        Touches the disk.
        """
        if self.is_resumed or has_trained(self.path):
            return False
        # A folder that was there before has the files of a job, which stay.
        if self.created:
            shutil.rmtree(self.path, ignore_errors=True)
        else:
            clear(self.path)
            (self.path / lock.NAME).unlink(missing_ok=True)
        with suppress(OSError):  # another run uses it by now
            for parent in self.created[1:]:
                parent.rmdir()
        return True


def unused_path(name: str) -> Path:
    """`runs/NAME`, with a number appended if that exists. Reads the disk."""
    path = PARENT / name
    numbers = count(2)
    while path.exists():
        path = PARENT / f"{name}-{next(numbers)}"
    return path


def writing_errors(out: Path, where: str) -> list[Diagnostic]:
    """Why no run may write to `out`, given at `where`; creates nothing. Reads the disk."""
    try:
        disk.check_writable(out, where, allowed=_ALLOWED)
    except SettingsError as error:
        return error.diagnostics
    name = foreign_name(out)
    if name is None:
        return []
    if is_run_folder(out) or (out / STAGES).is_file():
        return [_in_use(out, where)]
    return [
        Diagnostic(
            f"the folder {out} is not empty and not a run folder: it has {name}",
            value=str(out),
            where=where,
            allowed=_ALLOWED,
        )
    ]


def is_run_folder(folder: Path) -> bool:
    """Whether `folder` contains a run: its settings, and what only a run has beside them.

    A settings.yaml alone may be a file of the user. Reads the disk. Raises PermissionError.
    """
    if not is_file(folder / SETTINGS):
        return False
    beside = any((folder / name).exists() for name in (ORIGINS, CHECKPOINTS))
    return beside or any(folder.glob(f".{ORIGINS}.*"))  # a start that was killed


def foreign_name(folder: Path) -> str | None:
    """The first name in `folder` that no job and no killed start left there; None: there is none.

    A run may write to such a folder, which may also be missing. Reads the disk. Raises OSError.
    """
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        is_of_job = path.name == SLURM_FOLDER and has_only_jobs(path)
        is_left = _LEFT.fullmatch(path.name) and not path.is_symlink()
        if not is_of_job and not is_left:
            return path.name
    return None


def has_only_jobs(folder: Path) -> bool:
    """Whether a subfolder slurm/ has only files of jobs. Reads the disk. Raises OSError."""
    names = os.listdir(folder) if folder.is_dir() else ["a file"]
    if JOB_SCRIPT in names and b"gearshift_" not in (folder / JOB_SCRIPT).read_bytes():
        return False
    return all(map(_JOB_FILES.fullmatch, names))


def check_unused(out: Path, where: str) -> None:
    """Raise SettingsError as `writing_errors` says."""
    errors = writing_errors(out, where)
    if errors:
        raise SettingsError(errors)


def clear(folder: Path) -> None:
    """Remove what a run has written to its folder. Touches the disk.

    The files of its job stay, and the lock, which another process may hold.
    """
    for entry in folder.iterdir():
        if entry.name in (SLURM_FOLDER, lock.NAME):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def create(
    resolved: Resolved,
    out: Path | None,
    name: str,
    fill: Callable[[Path], object] = lambda folder: None,
) -> RunFolder:
    """Create the run folder with settings.yaml and origins.json; `fill` writes other files.

    Else as `create_with`.
    """

    def write(folder: Path) -> None:
        # origins.json last: with both files the folder is a run, see `is_run_folder`.
        with _staged(folder / ORIGINS, render.render_origins(resolved)) as origins:
            write_new(folder / SETTINGS, render.render_settings(resolved))
            origins.replace(folder / ORIGINS)
        fill(folder)
        (folder / LOG).touch()

    return create_with(out, name, write)


def create_with(out: Path | None, name: str, write: Callable[[Path], None]) -> RunFolder:
    """Create the folder that the user asked for, and let `write` write its initial files.

    `out` None: `runs/NAME`, with a number appended if that exists. Raises SettingsError, and leaves
    nothing behind then. Touches the disk.
    """
    where = f"--out {out}" if out else "no --out was given"
    path = out or unused_path(name)
    if not out:  # only the parent: another run may take the name now, and we use the next
        disk.check_writable(PARENT, where, allowed=_ALLOWED)
    else:
        check_unused(out, where)
    folder = RunFolder(path)
    try:
        if not out or not out.exists():
            missing = [parent for parent in path.absolute().parents if not parent.exists()]
            path.absolute().parent.mkdir(parents=True, exist_ok=True)
            path = _make(path, None if out else name)
            folder = RunFolder(path, (path, *missing))
        write(path)
    except FileExistsError as error:
        # Another run was faster; its files stay.
        raise SettingsError([_in_use(path, where)]) from error
    except OSError as error:
        if path.is_dir():
            folder.discard()
        raise SettingsError.of(
            f"cannot write the run folder {path}: {error.strerror or error}",
            value=str(path),
            where=where,
            allowed=_ALLOWED,
        ) from error
    return folder


def _make(path: Path, name: str | None) -> Path:
    """Make the folder `path`, or, for a default `name`, the next one that is not used."""
    while True:
        try:
            path.mkdir()
            return path
        except FileExistsError:
            if name is None:
                raise
            path = unused_path(name)


def check_regular(folder: Path) -> None:
    """Check that a run folder has only files and folders of its own, two levels down.

    It may come from others: what a link leads to is neither read nor written, and a pipe or
    device could block. Reads the disk. Raises SettingsError.
    """
    for entry in os.scandir(folder) if folder.is_dir() else ():
        entries = [entry]
        if entry.is_dir(follow_symlinks=False) and entry.name not in TRACKERS:
            with suppress(OSError):  # a running process has removed it; or it cannot be listed
                entries += os.scandir(entry)
        for file in entries:
            if file.is_file(follow_symlinks=False) or file.is_dir(follow_symlinks=False):
                continue
            is_link = file.is_symlink()
            if is_link and _LINK.fullmatch(file.name) and _TARGET.fullmatch(os.readlink(file.path)):
                continue
            raise SettingsError.of(
                f"{file.path} is {'a link' if is_link else 'not a regular file'}",
                value=file.path,
                where=str(folder),
                allowed="the files and folders of the run itself; "
                "best and last, which lead to its checkpoints",
            )


def rewrite_settings(storage: Storage, resolved: Resolved) -> None:
    """Replace settings.yaml and origins.json of a resumed run, each atomically.

    For rank 0 after all ranks have restored their state: until then the folder stays as it was.
    Touches the disk. Raises StorageError.
    """
    texts = {SETTINGS: render.render_settings(resolved), ORIGINS: render.render_origins(resolved)}
    for name, text in texts.items():
        with storage_errors(storage.path / name):
            storage.atomic_write(name, text.encode())


def remove_abandoned(folder: Path) -> None:
    """Remove what killed starts and exports left in the folder of a run that is resumed.

    For the process that holds its lock. Touches the disk.
    """
    temporary.remove_abandoned(folder)
    if not (folder / ORIGINS).exists():  # then a file that is left tells that this is a run
        return
    for path in folder.iterdir():
        if _LEFT.fullmatch(path.name) and path.name != lock.NAME:
            with suppress(OSError):
                path.unlink()


def write_new(path: Path, text: str) -> None:
    """Write a file that does not exist yet, completely or not at all. Raises OSError."""
    with _staged(path, text) as staged:
        publish_new(staged, path)


@contextmanager
def _staged(path: Path, text: str) -> Iterator[Path]:
    """A file with `text` under a hidden name beside `path`, for the block. Raises OSError."""
    staged = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open_staged(staged) as file:
            file.write(text.encode())
        yield staged
    finally:
        staged.unlink(missing_ok=True)


def has_trained(folder: Path) -> bool:
    """Whether the run in `folder` has logged a step or saved a checkpoint. Reads the disk."""
    metrics = folder / METRICS
    return (folder / CHECKPOINTS).exists() or (metrics.exists() and metrics.stat().st_size > 0)


def checkpoints(folder: Path) -> dict[int, Path]:
    """The checkpoint folders by step, the earliest first.

    Superseded ones have other names. Reads the disk. Raises PermissionError.
    """
    home = folder / CHECKPOINTS
    return {step: home / manifest.step_folder(step) for step in retention.steps(folder)}


def task_files(folder: Path) -> list[Path]:
    """The files of the task in a run folder, such as a tokenizer or the split. Reads the disk."""
    of_run = (SETTINGS, ORIGINS, STAGES, RESULT, METRICS, LOG, EVALUATIONS, ".", "events")
    files = filter(Path.is_file, folder.iterdir())
    return [path for path in files if not path.name.startswith(of_run)]


def append_log(folder: Path, text: str) -> None:
    """Append console output to the log of the run. Touches the disk.

    Does nothing if the folder is missing or the disk is full: that must not hide the first error.
    """
    with suppress(StorageError):
        Storage(folder).append_line(LOG, text.rstrip().encode(errors="backslashreplace"))


def _in_use(out: Path, where: str) -> Diagnostic:
    return Diagnostic(
        f"the run folder {out} contains another run",
        value=str(out),
        where=where,
        allowed=_ALLOWED,
        fix=program_line("resume", out),
    )
