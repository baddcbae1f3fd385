"""Which checkpoints of a run folder stay: links, retention, renaming, and room for one more."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING

from gearshift.training.checkpoint import manifest
from gearshift.training.checkpoint.manifest import CheckpointError, Manifest
from gearshift.training.logging.encoding import size
from gearshift.training.storage import Storage, storage_errors, sync

if TYPE_CHECKING:
    from torch.nn import Module

    from gearshift.training.settings import TrainingSettings


CHECKPOINTS = "checkpoints"
LAST = "last"
BEST = "best"
_SAVING = ".saving-"
_DELETING = ".deleting-"
_REPLACED = ".replaced-"


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


def recover(run: Path) -> None:
    """Restore checkpoints whose replacement was not completed.

    The one process that resumes the run calls this before it looks for checkpoints. Touches disk.
    """
    folder = run / CHECKPOINTS
    for older in folder.glob(f"{_REPLACED}*"):
        final = folder / older.name.removeprefix(_REPLACED)
        if not final.exists():
            older.rename(final)
            sync(folder)


def sweep(run: Path) -> None:
    """Delete what a killed process left half written or half deleted. Touches disk."""
    recover(run)
    for prefix in (_SAVING, _DELETING, _REPLACED):
        for entry in (run / CHECKPOINTS).glob(f"{prefix}*"):
            shutil.rmtree(entry, ignore_errors=True)


def settle(storage: Storage, newest: Path, keep: Keep) -> None:
    """Link `newest` as the last one, link the best, and delete those that `keep` does not keep.

    Incomplete checkpoints are never deleted.
    """
    complete = _complete(storage.path)
    storage.atomic_link(LAST, f"{CHECKPOINTS}/{newest.name}")
    best = _by_score(complete)
    if best:
        storage.atomic_link(BEST, f"{CHECKPOINTS}/{best[0]}")
    remaining = _remaining(complete, keep)
    # Whatever the links point to stays, also a best one without a score.
    for link in (LAST, BEST):
        remaining.add((storage.path / link).resolve().name)
    for checkpoint in complete:
        name = manifest.step_folder(checkpoint.step)
        if name not in remaining:
            _delete(newest.with_name(name))
    _delete(newest.with_name(f"{_REPLACED}{newest.name}"))


def prune(storage: Storage, keep: Keep) -> None:
    """Settle the newest checkpoint of a resumed run, which a kill may have prevented.

    Touches the disk. Raises StorageError.
    """
    complete = _complete(storage.path)
    if complete:
        newest = storage.path / CHECKPOINTS / manifest.step_folder(complete[-1].step)
        with storage_errors(newest):
            settle(storage, newest, keep)


def steps(run: Path) -> list[int]:
    """The steps of the checkpoints in `run`, complete or not. Reads the disk.

    Raises PermissionError.
    """
    home = run / CHECKPOINTS
    numbers = []
    for entry in home.iterdir() if home.is_dir() else ():
        step = manifest.step_of(entry.name)
        if step is not None and not entry.is_symlink():
            numbers.append(step)
    return sorted(numbers)


def _complete(run: Path) -> list[Manifest]:
    """The checkpoints of `run` whose files have the right sizes, by step."""
    complete = []
    for step in steps(run):
        with suppress(CheckpointError):
            complete.append(manifest.read(run / CHECKPOINTS / manifest.step_folder(step)))
    return complete


def set_aside(storage: Storage, after_step: int, damaged: Collection[int] = ()) -> None:
    """Rename the checkpoints after `after_step`, from which the run is resumed.

    They become `superseded-step-…`, those of `damaged` steps `damaged-step-…`, with a number if
    that exists, and are never deleted. The links then point to the remaining checkpoints. Touches
    disk.
    """
    storage.check()
    run = storage.path
    left = [checkpoint for checkpoint in _complete(run) if checkpoint.step <= after_step]
    # The links first, so that they always point to a checkpoint.
    newest = [manifest.step_folder(checkpoint.step) for checkpoint in left[-1:]]
    for link, names in ((LAST, newest), (BEST, _by_score(left))):
        if names:
            storage.atomic_link(link, f"{CHECKPOINTS}/{names[0]}")
        elif (run / link).is_symlink():
            (run / link).unlink()
    for step in steps(run):
        if step <= after_step:
            continue
        folder = run / CHECKPOINTS / manifest.step_folder(step)
        kind = "damaged" if step in damaged else "superseded"
        name = f"{kind}-{folder.name}"
        free = chain([name], (f"{name}-{number}" for number in count(2)))
        folder.rename(next(path for path in map(folder.with_name, free) if not path.exists()))
        sync(folder.parent)


def _remaining(complete: list[Manifest], keep: Keep) -> set[str]:
    periodic = [checkpoint for checkpoint in complete if checkpoint.periodic]
    stays = [*complete[-1:], *periodic[-keep.last :]]
    for checkpoint in periodic:
        step = checkpoint.step
        if step == keep.at or (keep.every and step % keep.every == 0):
            stays.append(checkpoint)
    names = {manifest.step_folder(checkpoint.step) for checkpoint in stays}
    return names.union(_by_score(complete)[: keep.best])


def _by_score(complete: list[Manifest]) -> list[str]:
    """The names of those with a score, the best first; of equal ones the earlier first.

    Scores by another metric than the newest one, or on other data or samples, cannot be compared
    and are omitted.
    """
    ranked: list[tuple[float, int]] = []
    newest = None
    for checkpoint in reversed(complete):
        score = checkpoint.score
        if score is None:
            continue
        newest = newest or score
        if replace(score, value=0.0) == replace(newest, value=0.0):
            ranked.append((score.rank, checkpoint.step))
    return [manifest.step_folder(step) for _, step in sorted(ranked)]


def _delete(folder: Path) -> None:
    """Delete a checkpoint, its name first: half deleted it would look damaged."""
    if folder.exists():
        hidden = folder.with_name(f"{_DELETING}{folder.name}")
        shutil.rmtree(hidden, ignore_errors=True)
        folder.rename(hidden)
        shutil.rmtree(hidden, ignore_errors=True)


# For the JSON files, and a margin for file systems that count whole blocks.
_SPARE_BYTES = 16 * 2**20
_FP32_BYTES = 4


def lacking(folder: Path, needed: int) -> str | None:
    """`it needs 3.0 GiB, and FOLDER has 1.0 GiB free`; None: there is room for `needed` bytes.

    Reads the disk. Raises OSError.
    """
    free = shutil.disk_usage(folder).free
    if free >= needed + _SPARE_BYTES:
        return None
    return f"it needs {size(needed + _SPARE_BYTES)}, and {folder} has {size(free)} free"


def checkpoint_bytes(model: Module, settings: TrainingSettings, *, only_trained: bool) -> int:
    """The bytes of the tensors of a checkpoint of `model`.

    Weights and optimizer slots in fp32 or wider, and the weights once more in a checkpoint with a
    score. `only_trained`: frozen weights are left out, as with LoRA. Before an engine has placed
    `model`.
    """
    from torch.nn import Parameter  # this module also serves checks before torch is imported

    evaluate = settings.eval
    optim = settings.optim
    evaluates = evaluate.every or evaluate.each_epoch or evaluate.last
    copies = 2 if settings.save.keep_best > 0 and evaluates else 1
    total = 0
    for tensor in model.state_dict(keep_vars=True).values():
        if not isinstance(tensor, Parameter):
            total += tensor.nbytes * copies
    for parameter in model.parameters():
        size = parameter.numel() * max(_FP32_BYTES, parameter.itemsize)
        if parameter.requires_grad or not only_trained:
            total += size * copies
        if not parameter.requires_grad or not size:
            continue
        if settings.train.ema is not None:
            total += size
        if optim.name != "adafactor":
            total += optim.slots * size
        elif parameter.ndim > 1:
            total += size // parameter.shape[-1] + size // parameter.shape[-2]
        else:
            total += size
    return total
