"""The run folder: its layout, its creation, and its removal if the run did not train."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.base.diagnostics import PROGRAM, Diagnostic, SettingsError
from launcher.config import render
from launcher.config.provenance import Resolved
from launcher.config.render import ORIGINS, SETTINGS
from training.storage import Storage, storage_errors

if TYPE_CHECKING:
    from engines.base import World

LOG = "log.txt"
RESULT = "result.json"
STAGES = "stages.json"
"""In the folder of a staged run: the names of its stages and their run folders."""
METRICS = "metrics.jsonl"
EVENTS = "events.jsonl"
EXPORT = "export-"
"""Prefix of folders with an exported model."""
PREDICTIONS = "predictions"
"""The folder with predictions of files."""
CHECKPOINTS = "checkpoints"
LINKS = ("best", "last")
REPORT = "report.html"
PARENT = Path("runs")
_RUN_FILES = (SETTINGS, ORIGINS, STAGES, RESULT, METRICS, CHECKPOINTS)


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run, and what it contained before the run."""

    path: Path
    created_parents: tuple[Path, ...]
    """Parent folders created for it, the innermost first."""
    existing: frozenset[str] | None
    """Names it contained before the run; None: it was created for the run."""
    is_resumed: bool = False
    """The run in it started earlier: nothing may be removed."""
    copied_bytes: int = 0
    """Bytes of metrics.jsonl that were copied from the forked run."""

    def discard(self) -> bool:
        """Remove all files of the run unless it has trained; whether they were removed.

        Touches the disk.
        """
        if self.is_resumed or has_trained(self.path, self.copied_bytes):
            return False
        if self.existing is None:
            shutil.rmtree(self.path, ignore_errors=True)
        else:
            clear_except(self.path, self.existing)
        for parent in self.created_parents:
            try:
                parent.rmdir()
            except OSError:  # another run uses it by now
                break
        return True


def default_name(model: str, mode: str, engine: str, now: datetime) -> str:
    """`language-small-fast-zero2-20250131-142501`."""
    return "-".join((model.replace(":", "-"), mode, engine, now.strftime("%Y%m%d-%H%M%S")))


def unused_path(name: str) -> Path:
    """`runs/NAME`, with a number appended if that exists."""
    path, number = PARENT / name, 1
    while path.exists():
        number += 1
        path = PARENT / f"{name}-{number}"
    return path


def check_writable(out: Path, where: str) -> None:
    """Check that a run may write to `out`, which the user gave at `where`; creates nothing.

    Raises SettingsError.
    """
    if _exists(out, where):
        if not out.is_dir():
            raise _error(out, where, f"the run folder {out} is a file")
        if not os.access(out, os.R_OK | os.W_OK | os.X_OK):
            raise _error(out, where, f"the run folder {out} is not writable")
        if not is_unused(out):
            raise _in_use(out, where)
        return
    above = next((path for path in out.absolute().parents if _exists(path, where)), Path("/"))
    if not above.is_dir():
        raise _error(out, where, f"cannot create the run folder {out}: {above} is a file")
    if not os.access(above, os.W_OK | os.X_OK):
        raise _error(out, where, f"cannot create the run folder {out}: {above} is not writable")


def writing_errors(out: Path, where: str) -> list[Diagnostic]:
    """The errors of `check_writable`."""
    try:
        check_writable(out, where)
    except SettingsError as error:
        return error.diagnostics
    return []


def check_free(folder: Path, out: Path | None) -> None:
    """Check that `folder` is new or empty; `out`: the folder of --out. Raises SettingsError."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    message = f"{folder} is not empty" if folder.is_dir() else f"{folder} is a file"
    where = f"command line: --out {out}" if out else "the default of --out"
    allowed = "a new or empty folder"
    raise SettingsError.of(message, value=str(folder), where=where, allowed=allowed)


def is_unused(folder: Path) -> bool:
    """Whether `folder`, which may be missing, has no files of a run. Reads the disk."""
    return not any((folder / name).exists() for name in _RUN_FILES)


def clear_except(folder: Path, kept: Collection[str]) -> None:
    """Remove everything in `folder` except the names in `kept`. Touches the disk."""
    for entry in folder.iterdir():
        if entry.name in kept:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def create(
    resolved: Resolved,
    out: Path | None,
    name: str,
    fill: Callable[[Path], None] = lambda folder: None,
) -> RunFolder:
    """Create the run folder and write settings.yaml and origins.json to it.

    `out` is the folder the user asked for; None: `runs/NAME`, with a number appended if that
    exists. `fill` writes the other initial files. Raises SettingsError, and leaves nothing behind
    then. Touches the disk.
    """

    def write(folder: Path) -> None:
        write_new(folder / SETTINGS, render.render_settings(resolved))
        write_new(folder / ORIGINS, render.render_origins(resolved))
        fill(folder)
        (folder / LOG).touch()

    folder = create_with(out, name, write)
    return replace(folder, copied_bytes=_size(folder.path / METRICS))


def create_with(out: Path | None, name: str, write: Callable[[Path], None]) -> RunFolder:
    """Create a folder as `create` does; `write` writes its initial files.

    Raises SettingsError, and leaves nothing behind then. Touches the disk.
    """
    where = f"--out {out}" if out is not None else "no --out was given"
    wanted = PARENT / name if out is None else out
    # Without --out check only the parent: another run may take the name now, and we use the next.
    check_writable(wanted.parent if out is None else wanted, where)
    folder: RunFolder | None = None
    try:
        folder = _create_numbered(wanted) if out is None else _open_or_create(wanted)
        write(folder.path)
    except FileExistsError as error:
        # Another run was faster; its files stay.
        raise _in_use(wanted, where) from error
    except OSError as error:
        if folder is not None:
            folder.discard()
        reason = error.strerror or str(error)
        raise _error(wanted, where, f"cannot write the run folder {wanted}: {reason}") from error
    return folder


def open_existing(folder: Path) -> RunFolder:
    """The folder of a run to resume; nothing is written. Raises SettingsError."""
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise _error(folder, f"the run in {folder}", f"the run folder {folder} is not writable")
    return RunFolder(folder, (), frozenset(), is_resumed=True)


def rewrite_settings(storage: Storage, resolved: Resolved) -> None:
    """Replace settings.yaml and origins.json of a resumed run, each atomically.

    For rank 0 after all ranks have restored their state: until then the folder stays as it was.
    Touches the disk. Raises StorageError.
    """
    for name, text in (
        (SETTINGS, render.render_settings(resolved)),
        (ORIGINS, render.render_origins(resolved)),
    ):
        with storage_errors(storage.path / name):
            storage.atomic_write(name, text.encode())


def write_new(path: Path, text: str) -> None:
    """Write a file that does not exist yet. Raises OSError."""
    with path.open("x", encoding="utf-8") as file:
        file.write(text)


def has_trained(folder: Path, copied_bytes: int = 0) -> bool:
    """Whether the run in `folder` has logged a step or saved a checkpoint. Reads the disk.

    The first `copied_bytes` of its metrics belong to the forked run.
    """
    return _size(folder / METRICS) > copied_bytes or (folder / CHECKPOINTS).exists()


def is_run_file(name: str) -> bool:
    """Whether a file of that name in a run folder is one of the launcher, not of the task."""
    return name in (*_RUN_FILES, LOG) or name.startswith("events")


def task_files(folder: Path) -> list[Path]:
    """The files of the task in a run folder, such as a tokenizer or the split. Reads the disk."""
    return [
        entry
        for entry in folder.iterdir()
        if entry.is_file() and not entry.name.startswith(".") and not is_run_file(entry.name)
    ]


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON Lines file, without half a line that a kill left. Reads the disk."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for line in text.split("\n"):
        with suppress(ValueError):
            yield json.loads(line)


def append_log(folder: Path, text: str) -> None:
    """Append console output to the log of the run. Touches the disk.

    Does nothing if the folder is missing or the disk is full: that must not hide the first error.
    """
    with suppress(OSError), (folder / LOG).open("a", encoding="utf-8") as file:
        file.write(text.rstrip() + "\n")


def broadcast_path(path: Path | None, world: World) -> Path | None:
    """The path of rank 0, on every rank. Collective.

    Ranks started by torchrun or srun need it: the name of the run folder contains the time.
    """
    data = world.broadcast(b"" if path is None else os.fsencode(path.absolute()))
    if world.rank == 0:
        return path
    return Path(os.fsdecode(data)) if data else None


def _create_numbered(wanted: Path) -> RunFolder:
    parents = _create_parents(wanted)
    number = 1
    while True:
        path = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
        else:
            return RunFolder(path, parents, None)


def _open_or_create(wanted: Path) -> RunFolder:
    if wanted.exists():
        return RunFolder(wanted, (), frozenset(os.listdir(wanted)))
    parents = _create_parents(wanted)
    wanted.mkdir()
    return RunFolder(wanted, parents, None)


def _create_parents(path: Path) -> tuple[Path, ...]:
    missing = [parent for parent in path.absolute().parents if not parent.exists()]
    path.absolute().parent.mkdir(parents=True, exist_ok=True)
    return tuple(missing)


def _in_use(out: Path, where: str) -> SettingsError:
    fix = f"{PROGRAM} resume {out}"
    return _error(out, where, f"the run folder {out} contains another run", fix)


def _error(out: Path, where: str, what: str, fix: str | None = None) -> SettingsError:
    allowed = "a new or empty writable folder; without --out, a new folder in runs/"
    return SettingsError.of(what, value=str(out), where=where, allowed=allowed, fix=fix)


def _exists(path: Path, where: str) -> bool:
    try:
        return path.exists()
    except OSError as error:  # no permission, or the name is too long
        reason = error.strerror or str(error)
        raise _error(path, where, f"cannot open {path}: {reason}") from error


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
