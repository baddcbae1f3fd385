"""Which checkpoints stay: the links to the last and the best, and what is deleted."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from training.checkpoint import manifest
from training.checkpoint.manifest import CheckpointError, Manifest
from training.storage import Storage, sync

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


def unfinished(run: Path, step: int, door: Path | None = None) -> Path:
    """Where the checkpoint of `step` is made: in the `door`, or among the others."""
    return _hidden(run, door) / f"{_SAVING}{manifest.step_folder(step)}"


def publish(run: Path, step: int, door: Path | None = None) -> Path:
    """Give the checkpoint that was made its name, in place of an older one of the same step.

    At each moment one of the two is there under its name, or `recover` finds the older one. Touches
    disk.
    """
    final = run / CHECKPOINTS / manifest.step_folder(step)
    if final.exists():
        older = _hidden(run, door) / f"{_REPLACED}{final.name}"
        _delete(run, older, door)
        final.rename(older)
        sync(final.parent)
    unfinished(run, step, door).rename(final)
    sync(final.parent)
    return final


def recover(run: Path, door: Path | None = None) -> list[str]:
    """Give back its name to what was to be replaced where the new one did not arrive.

    To be called, by the one process that goes on with `run`, before a checkpoint is looked for; and
    with each `door` that it has closed. Gives the names. Touches disk.
    """
    folder, found = run / CHECKPOINTS, []
    for older in sorted(_hidden(run, door).glob(f"{_REPLACED}*")):
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


def settle(run: Path, newest: Path, keep: Keep, door: Path | None = None) -> list[str]:
    """Link `newest` as the last and the best verdict as the best, and delete what need not stay.

    Gives the names of what was deleted. A folder that is no whole checkpoint is left to the person.
    """
    whole = _whole(run)
    _point(run, LAST, newest.name, door)
    if best := _by_verdict(whole):
        _point(run, BEST, manifest.step_folder(best[0].step), door)
    # Whatever the links lead to stays, a best one without a verdict too.
    kept = _kept(whole, keep) | {_target(run, LAST), _target(run, BEST)}
    doomed = [name for one in whole if (name := manifest.step_folder(one.step)) not in kept]
    for name in doomed:
        _delete(run, run / CHECKPOINTS / name, door)
    _delete(run, _hidden(run, door) / f"{_REPLACED}{newest.name}", door)
    return doomed


def set_aside(run: Path, after_step: int, door: Path | None = None) -> list[str]:
    """Rename the checkpoints of later steps than `after_step`, for a run that goes on from there.

    They become `superseded-step-…`, with a number where that is taken, and are never deleted. The
    links lead to what is left, or go. Gives the new names. Touches disk.
    """
    steps = sorted(_steps(run))
    return _rename(run, [step for step in steps if step > after_step], "superseded", door)


def mark_damaged(run: Path, step: int, door: Path | None = None) -> str:
    """Rename the checkpoint of `step`, whose bytes are not those that were written.

    It becomes `damaged-step-…`, as in `set_aside`. Gives the new name. Touches disk.
    """
    return _rename(run, [step], "damaged", door)[0]


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


def _hidden(run: Path, door: Path | None) -> Path:
    """Where what has no name of its own lies: unfinished, replaced, to be deleted."""
    return door or run / CHECKPOINTS


def _rename(run: Path, steps: list[int], why: str, door: Path | None) -> list[str]:
    left = [one for one in _whole(run) if one.step not in steps]
    best = _by_verdict(left)
    # The links first, so that at no moment one leads nowhere.
    for link, target in ((LAST, left[-1:]), (BEST, best[:1])):
        if target:
            _point(run, link, manifest.step_folder(target[0].step), door)
        elif (run / link).is_symlink():
            _drop(run / link, door)
    names = []
    for step in steps:
        folder = run / CHECKPOINTS / manifest.step_folder(step)
        aside = _free(folder.with_name(f"{why}-{folder.name}"))
        if door is not None:
            folder.rename(folder := door / f"{_REPLACED}{folder.name}")
        folder.rename(aside)
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

    A verdict by another metric than the newest one's, or on other data, cannot be compared with it:
    left out.
    """
    judged = [(one.score, one) for one in whole if one.score is not None]
    if not judged:
        return []
    newest = judged[-1][0]
    comparable = [
        (score.rank, one.step, one)
        for score, one in judged
        if (score.metric, score.direction, score.since)
        == (newest.metric, newest.direction, newest.since)
    ]
    return [one for _, _, one in sorted(comparable, key=lambda entry: entry[:2])]


def _point(run: Path, link: str, name: str, door: Path | None) -> None:
    """Let the link `run`/`link` lead to the checkpoint `name`, from one moment to the next."""
    Storage(run, door).atomic_link(link, os.path.join(CHECKPOINTS, name))


def _drop(link: Path, door: Path | None) -> None:
    Storage(link.parent, door).remove_file(link.name)


def _target(run: Path, link: str) -> str | None:
    """The name of the checkpoint that a link leads to; None where there is none."""
    path = run / link
    return Path(os.readlink(path)).name if path.is_symlink() else None


def _delete(run: Path, folder: Path, door: Path | None) -> None:
    """Take the name away first: half deleted under it, this would be a damaged checkpoint."""
    if folder.exists():
        hidden = _hidden(run, door) / f"{_DELETING}{folder.name}"
        shutil.rmtree(hidden, ignore_errors=True)
        folder.rename(hidden)
        shutil.rmtree(hidden, ignore_errors=True)
