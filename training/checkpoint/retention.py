"""Which checkpoints stay: the links to the last and the best, and what is deleted."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from training.checkpoint import manifest
from training.checkpoint.manifest import CheckpointError, Manifest

CHECKPOINTS = "checkpoints"
LAST = "last"
BEST = "best"
_SAVING, _DELETING, _REPLACED = ".saving-", ".deleting-", ".replaced-"


@dataclass(frozen=True)
class Keep:
    """How many checkpoints stay beside the last one."""

    last: int
    """The newest periodic ones."""
    best: int
    """Those of the best verdicts."""
    every: int | None
    """Periodic ones at a multiple of so many steps stay for good."""


def unfinished(folder: Path, step: int) -> Path:
    """Where the checkpoint of `step` is made, in `folder` of checkpoints."""
    return folder / f"{_SAVING}{manifest.step_folder(step)}"


def publish(made: Path, step: int) -> Path:
    """Give the folder `made` its name, in place of an older one of the same step. Touches disk.

    At each moment one of the two is there under its name, or `recover` finds the older one.
    """
    final = made.parent / manifest.step_folder(step)
    if final.exists():
        older = made.parent / f"{_REPLACED}{final.name}"
        _delete(older)
        final.rename(older)
        sync(made.parent)
    made.rename(final)
    sync(made.parent)
    return final


def recover(run: Path) -> list[str]:
    """Give back its name to what was to be replaced where the new one did not arrive.

    To be called, by the one process that goes on with `run`, before a checkpoint is looked for.
    Gives the names. Touches disk.
    """
    folder, found = run / CHECKPOINTS, []
    for older in sorted(folder.glob(f"{_REPLACED}*")):
        final = folder / older.name.removeprefix(_REPLACED)
        if not final.exists():
            older.rename(final)
            sync(folder)
            found.append(final.name)
    return found


def sweep(run: Path) -> None:
    """Delete what a process that was killed left half made or half deleted. Touches disk."""
    recover(run)
    for prefix in (_SAVING, _DELETING, _REPLACED):
        for entry in (run / CHECKPOINTS).glob(f"{prefix}*"):
            shutil.rmtree(entry, ignore_errors=True)


def settle(run: Path, newest: Path, keep: Keep) -> list[str]:
    """Link `newest` as the last and the best verdict as the best, and delete what need not stay.

    Gives the names of what was deleted. A folder that is no whole checkpoint is left to the person.
    """
    _point(run, LAST, newest.name)
    whole = _whole(run)
    if best := _by_verdict(whole):
        _point(run, BEST, manifest.step_folder(best[0].step))
    kept = _kept(whole, keep) | {newest.name}
    doomed = [name for one in whole if (name := manifest.step_folder(one.step)) not in kept]
    for name in doomed:
        _delete(run / CHECKPOINTS / name)
    _delete(run / CHECKPOINTS / f"{_REPLACED}{newest.name}")
    return doomed


def sync(folder: Path) -> None:
    """Make the names in `folder` outlive a loss of power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _whole(run: Path) -> list[Manifest]:
    """The whole checkpoints of `run`, by step."""
    found = []
    for folder in (run / CHECKPOINTS).iterdir():
        if manifest.step_of(folder.name) is None or folder.is_symlink():
            continue
        try:
            found.append(manifest.read(folder))
        except CheckpointError:
            continue
    return sorted(found, key=lambda one: one.step)


def _kept(whole: list[Manifest], keep: Keep) -> set[str]:
    periodic = [one for one in whole if one.periodic]
    kept = [
        *whole[-1:],
        *periodic[-keep.last :],
        *_by_verdict(whole)[: keep.best],
        *(one for one in periodic if keep.every and one.step % keep.every == 0),
    ]
    return {manifest.step_folder(one.step) for one in kept}


def _by_verdict(whole: list[Manifest]) -> list[Manifest]:
    """Those with a verdict, the best first; of equals the earlier.

    A verdict by another metric than the newest one's cannot be compared with it: left out.
    """
    judged = [(one.verdict, one) for one in whole if one.verdict is not None]
    if not judged:
        return []
    newest = judged[-1][0]
    comparable = [
        (verdict.rank, one.step, one)
        for verdict, one in judged
        if (verdict.metric, verdict.direction) == (newest.metric, newest.direction)
    ]
    return [one for _, _, one in sorted(comparable, key=lambda entry: entry[:2])]


def _point(run: Path, link: str, name: str) -> None:
    """Let the link `run`/`link` lead to the checkpoint `name`, from one moment to the next."""
    beside = run / f".{link}.new"
    beside.unlink(missing_ok=True)
    beside.symlink_to(os.path.join(CHECKPOINTS, name), target_is_directory=True)
    beside.replace(run / link)
    sync(run)


def _delete(folder: Path) -> None:
    """Take the name away first: half deleted under it, this would be a damaged checkpoint."""
    if folder.exists():
        hidden = folder.with_name(f"{_DELETING}{folder.name}")
        shutil.rmtree(hidden, ignore_errors=True)
        folder.rename(hidden)
        shutil.rmtree(hidden, ignore_errors=True)
