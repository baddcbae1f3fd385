"""Which checkpoints stay: the links to the last and the best, and what is deleted."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from training.checkpoint import manifest
from training.checkpoint.manifest import CheckpointError

CHECKPOINTS = "checkpoints"
LAST = "last"
BEST = "best"
_HIDDEN = (".saving-", ".deleting-")


def unfinished(folder: Path, step: int) -> Path:
    """Where the checkpoint of `step` is made, in `folder` of checkpoints."""
    return folder / f".saving-{manifest.step_folder(step)}"


def publish(made: Path, step: int) -> Path:
    """Give the folder `made` its name, in place of an older one of the same step. Touches disk."""
    final = made.parent / manifest.step_folder(step)
    older = _hide(final) if final.exists() else None
    made.rename(final)
    sync(made.parent)
    if older is not None:
        shutil.rmtree(older, ignore_errors=True)
    return final


def point(run: Path, name: str, checkpoint: Path) -> None:
    """Let the link `run`/`name` lead to `checkpoint`, from one moment to the next."""
    beside = run / f".{name}.new"
    beside.unlink(missing_ok=True)
    beside.symlink_to(os.path.relpath(checkpoint, run), target_is_directory=True)
    beside.replace(run / name)
    sync(run)


def target(run: Path, name: str) -> str | None:
    """The name of the checkpoint that a link leads to; None where there is none."""
    link = run / name
    return Path(os.readlink(link)).name if link.is_symlink() else None


def prune(run: Path, keep_last: int) -> list[str]:
    """Delete checkpoints; gives their names. The last and the best stay, and periodic ones.

    Of the periodic ones the newest `keep_last` stay. A folder that is no whole checkpoint is left
    to the person.
    """
    kept = {target(run, LAST), target(run, BEST)}
    periodic: list[Path] = []
    others: list[Path] = []
    for folder in sorted((run / CHECKPOINTS).iterdir()):
        if manifest.step_of(folder.name) is None or folder.is_symlink():
            continue
        try:
            (periodic if manifest.read(folder).periodic else others).append(folder)
        except CheckpointError:
            continue
    periodic.sort(key=lambda folder: manifest.step_of(folder.name) or 0)
    doomed = [f for f in (*others, *periodic[:-keep_last]) if f.name not in kept]
    for folder in doomed:
        shutil.rmtree(_hide(folder), ignore_errors=True)
    return [folder.name for folder in doomed]


def sweep(folder: Path) -> None:
    """Delete what a process that was killed left half made or half deleted. Touches disk."""
    if folder.is_dir():
        for entry in folder.iterdir():
            if entry.name.startswith(_HIDDEN):
                shutil.rmtree(entry, ignore_errors=True)


def sync(folder: Path) -> None:
    """Make the names in `folder` outlive a loss of power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _hide(folder: Path) -> Path:
    """Take the name away first: half deleted under it, this would be a damaged checkpoint."""
    hidden = folder.with_name(f".deleting-{folder.name}")
    shutil.rmtree(hidden, ignore_errors=True)
    folder.rename(hidden)
    return hidden
