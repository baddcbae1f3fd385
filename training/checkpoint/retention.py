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
    whole = _whole(run)
    _point(run, LAST, newest.name)
    if best := _by_verdict(whole):
        _point(run, BEST, manifest.step_folder(best[0].step))
    # Whatever the links lead to stays, a best one without a verdict too.
    kept = _kept(whole, keep) | {_target(run, LAST), _target(run, BEST)}
    doomed = [name for one in whole if (name := manifest.step_folder(one.step)) not in kept]
    for name in doomed:
        _delete(run / CHECKPOINTS / name)
    _delete(run / CHECKPOINTS / f"{_REPLACED}{newest.name}")
    return doomed


def set_aside(run: Path, after_step: int) -> list[str]:
    """Rename the checkpoints of later steps than `after_step`, for a run that goes on from there.

    They become `superseded-step-…`, with a number where that is taken, and are never deleted. The
    links lead to what is left, or go. Gives the new names. Touches disk.
    """
    steps = sorted(_steps(run))
    return _rename(run, [step for step in steps if step > after_step], "superseded")


def mark_damaged(run: Path, step: int) -> str:
    """Rename the checkpoint of `step`, whose bytes are not those that were written.

    It becomes `damaged-step-…`, as in `set_aside`. Gives the new name. Touches disk.
    """
    return _rename(run, [step], "damaged")[0]


def sync(folder: Path) -> None:
    """Make the names in `folder` outlive a loss of power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _steps(run: Path) -> dict[int, Path]:
    """The folders that have the name of a checkpoint, by step."""
    folder = run / CHECKPOINTS
    found = folder.iterdir() if folder.is_dir() else ()
    steps = {manifest.step_of(one.name): one for one in found if not one.is_symlink()}
    return {step: one for step, one in steps.items() if step is not None}


def _whole(run: Path) -> list[Manifest]:
    """The whole checkpoints of `run`, by step, as far as the sizes of their files tell."""
    found = []
    for _, folder in sorted(_steps(run).items()):
        try:
            found.append(manifest.read(folder))
        except CheckpointError:
            continue
    return found


def _rename(run: Path, steps: list[int], why: str) -> list[str]:
    left = [one for one in _whole(run) if one.step not in steps]
    best = _by_verdict(left)
    # The links first, so that at no moment one leads nowhere.
    for link, target in ((LAST, left[-1:]), (BEST, best[:1])):
        if target:
            _point(run, link, manifest.step_folder(target[0].step))
        else:
            (run / link).unlink(missing_ok=True)
    names = []
    for step in steps:
        folder = run / CHECKPOINTS / manifest.step_folder(step)
        folder.rename(aside := _free(folder.with_name(f"{why}-{folder.name}")))
        names.append(aside.name)
    if names:
        sync(run / CHECKPOINTS)
    return names


def _free(path: Path) -> Path:
    """`path`, or with the first number behind it that no other has."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free


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


def _target(run: Path, link: str) -> str | None:
    """The name of the checkpoint that a link leads to; None where there is none."""
    path = run / link
    return Path(os.readlink(path)).name if path.is_symlink() else None


def _delete(folder: Path) -> None:
    """Take the name away first: half deleted under it, this would be a damaged checkpoint."""
    if folder.exists():
        hidden = folder.with_name(f"{_DELETING}{folder.name}")
        shutil.rmtree(hidden, ignore_errors=True)
        folder.rename(hidden)
        shutil.rmtree(hidden, ignore_errors=True)
