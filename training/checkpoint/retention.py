"""Which checkpoints of a run folder stay: links to the last and the best, retention, renaming."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace
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
    """Those with the best scores."""
    every: int | None
    """Periodic ones at multiples of this step stay forever."""
    at: int | None = None
    """So does the one of this step."""


def unfinished(storage: Storage, step: int) -> Path:
    """The folder in which the checkpoint of `step` is written before it has its name."""
    return storage.path / CHECKPOINTS / f"{_SAVING}{manifest.step_folder(step)}"


def publish(storage: Storage, step: int) -> Path:
    """Give a complete checkpoint its name, and replace an older one of the same step.

    At each moment one of the two has the name, or `recover` restores the older one. Touches disk.
    """
    storage.check()
    final = storage.path / CHECKPOINTS / manifest.step_folder(step)
    if final.exists():
        older = final.with_name(f"{_REPLACED}{final.name}")
        _delete(older)
        final.rename(older)
        sync(final.parent)
    unfinished(storage, step).rename(final)
    sync(final.parent)
    return final


def recover(run: Path) -> list[str]:
    """Restore checkpoints whose replacement was not completed; returns their names.

    The one process that resumes the run calls this before it looks for checkpoints. Touches disk.
    """
    folder, names = run / CHECKPOINTS, []
    for older in sorted(folder.glob(f"{_REPLACED}*")):
        final = folder / older.name.removeprefix(_REPLACED)
        if not final.exists():
            older.rename(final)
            sync(folder)
            names.append(final.name)
    return names


def sweep(run: Path) -> None:
    """Delete what a killed process left half written or half deleted. Touches disk."""
    recover(run)
    for prefix in (_SAVING, _DELETING, _REPLACED):
        for entry in (run / CHECKPOINTS).glob(f"{prefix}*"):
            shutil.rmtree(entry, ignore_errors=True)


def settle(storage: Storage, newest: Path, keep: Keep) -> list[str]:
    """Link `newest` as the last one, link the best, and delete those that `keep` does not keep.

    Returns the names of deleted checkpoints. Incomplete checkpoints are never deleted.
    """
    complete = _complete(storage.path)
    _link(storage, LAST, newest.name)
    if best := _by_score(complete):
        _link(storage, BEST, manifest.step_folder(best[0].step))
    # Whatever the links point to stays, also a best one without a score.
    remaining = _kept(complete, keep) | {_target(storage.path, LAST), _target(storage.path, BEST)}
    names = [manifest.step_folder(checkpoint.step) for checkpoint in complete]
    doomed = [name for name in names if name not in remaining]
    for name in doomed:
        _delete(storage.path / CHECKPOINTS / name)
    _delete(newest.with_name(f"{_REPLACED}{newest.name}"))
    return doomed


def set_aside(storage: Storage, after_step: int) -> list[str]:
    """Rename the checkpoints after `after_step`, from which the run is resumed; the new names.

    They become `superseded-step-…`, with a number if that exists, and are never deleted. The links
    then point to the remaining checkpoints. Touches disk.
    """
    steps = sorted(_steps(storage.path))
    return _rename(storage, [step for step in steps if step > after_step], "superseded")


def mark_damaged(storage: Storage, step: int) -> str:
    """Rename the damaged checkpoint of `step` to `damaged-step-…`; the new name. Touches disk."""
    return _rename(storage, [step], "damaged")[0]


def _steps(run: Path) -> dict[int, Path]:
    folder = run / CHECKPOINTS
    entries = folder.iterdir() if folder.is_dir() else ()
    steps = {manifest.step_of(entry.name): entry for entry in entries if not entry.is_symlink()}
    return {step: entry for step, entry in steps.items() if step is not None}


def _complete(run: Path) -> list[Manifest]:
    """The checkpoints of `run` whose files have the right sizes, by step."""
    complete = []
    for _, folder in sorted(_steps(run).items()):
        try:
            complete.append(manifest.read(folder))
        except CheckpointError:
            continue
    return complete


def _rename(storage: Storage, steps: list[int], prefix: str) -> list[str]:
    storage.check()
    run = storage.path
    left = [checkpoint for checkpoint in _complete(run) if checkpoint.step not in steps]
    best = _by_score(left)
    # The links first, so that they always point to a checkpoint.
    for link, target in ((LAST, left[-1:]), (BEST, best[:1])):
        if target:
            _link(storage, link, manifest.step_folder(target[0].step))
        elif (run / link).is_symlink():
            storage.remove_file(link)
    names = []
    for step in steps:
        folder = run / CHECKPOINTS / manifest.step_folder(step)
        name = f"{prefix}-{folder.name}"
        new_names = (name, *(f"{name}-{number}" for number in range(2, 10**6)))
        aside = next(path for n in new_names if not (path := folder.with_name(n)).exists())
        folder.rename(aside)
        names.append(aside.name)
    if names:
        sync(run / CHECKPOINTS)
    return names


def _kept(complete: list[Manifest], keep: Keep) -> set[str]:
    periodic = [checkpoint for checkpoint in complete if checkpoint.periodic]
    forever = [c for c in periodic if c.step == keep.at or (keep.every and c.step % keep.every == 0)]
    newest = [*complete[-1:], *periodic[-keep.last :]]
    kept = [*newest, *_by_score(complete)[: keep.best], *forever]
    return {manifest.step_folder(checkpoint.step) for checkpoint in kept}


def _by_score(complete: list[Manifest]) -> list[Manifest]:
    """Those with a score, the best first; of equal ones the earlier first.

    Scores by another metric than the newest one, or on other data or samples, cannot be compared
    and are omitted.
    """
    scored = [(written.score, written) for written in complete if written.score is not None]
    ranked = [
        (score.rank, written.step, written)
        for score, written in scored
        if replace(score, value=0.0) == replace(scored[-1][0], value=0.0)
    ]
    return [written for _, _, written in sorted(ranked, key=lambda entry: entry[:2])]


def _link(storage: Storage, link: str, name: str) -> None:
    storage.atomic_link(link, os.path.join(CHECKPOINTS, name))


def _target(run: Path, link: str) -> str | None:
    """The name of the checkpoint that a link points to; None: there is no link."""
    path = run / link
    return Path(os.readlink(path)).name if path.is_symlink() else None


def _delete(folder: Path) -> None:
    """Delete a checkpoint, its name first: half deleted it would look damaged."""
    if folder.exists():
        hidden = folder.with_name(f"{_DELETING}{folder.name}")
        shutil.rmtree(hidden, ignore_errors=True)
        folder.rename(hidden)
        shutil.rmtree(hidden, ignore_errors=True)
