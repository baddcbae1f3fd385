"""The feature cache: outputs of a frozen encoder, computed once before training."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from models.base import EncoderInputs, HasFrozenEncoder, SplitName
from training.agreement import attempt
from training.callbacks.base import Facts
from training.data.fingerprint import add, probes, weights_digest
from training.data.loader import on_device
from training.logging.quantities import size
from training.settings import SettingError

if TYPE_CHECKING:
    from torch.nn import Module

    from engines.base import Engine, World
    from models.base import Task
    from training.settings import FeatureCache

Show = Callable[[str], object]
"""Shows a line of text; on one rank only."""
BATCH = 8
"""Inputs per forward pass: constant, so that the features are the same for any number of ranks and
any micro-batch. The number of rows of a matrix may change the rounding of its products."""
SPLITS: tuple[SplitName, ...] = ("train", "val")
HALVES = (torch.bfloat16, torch.float16)
"""Stored as fp32, as numpy has no bfloat16."""
_KILLED_S = 86400.0  # Without a write in it, a draft is of a killed process
_FACTS, _SPARE_BYTES = "made_from.json", 64 * 2**20


class Rows:
    """Rows by number, mapped from .npy files on access; can be pickled for other processes."""

    def __init__(self, folder: Path, first: int = 0) -> None:
        """Row 0 is the row `first` of the files. Raises OSError, and ValueError for a short file."""
        self._first, self._paths = first, sorted(folder.glob("*.npy"))
        for path in self._paths:
            np.load(path, mmap_mode="r")
        if not self._paths or not (folder / _FACTS).is_file():
            raise ValueError(f"{folder} is incomplete")

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:
        """A copy of row `number` of each array."""
        # Mapped per row: pages of a permanent mapping would count as memory of this process.
        row = self._first + number
        return {path.stem: np.array(np.load(path, mmap_mode="r")[row]) for path in self._paths}


def read(folder: Path) -> Rows | None:
    """The rows in `folder`; None: there are none, or they are incomplete. Touches disk."""
    try:
        return Rows(folder)
    except (OSError, ValueError):
        return None


def draft(final: Path, rows: Mapping[str, np.ndarray], count: int) -> Path:
    """A temporary folder beside `final` with files for `count` rows like `rows`. Raises OSError.

    Deletes drafts of killed processes.
    """
    for left in final.parent.glob(f".{final.name}-*"):
        if time.time() - max(path.stat().st_mtime for path in (left, *left.iterdir())) > _KILLED_S:
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{final.name}-", dir=final.parent))
    for name, array in rows.items():
        np.lib.format.open_memmap(folder / f"{name}.npy", "w+", array.dtype, (count, *array.shape[1:]))
    return folder


def write(folder: Path, number: int, rows: Mapping[str, np.ndarray]) -> None:
    """Write `rows` of each array into a draft, from row `number` on. Raises OSError."""
    for name, array in rows.items():
        start = np.lib.format.open_memmap(folder / f"{name}.npy", "r").offset
        # Not into the mapped file: on a full disk that would kill the process.
        with (folder / f"{name}.npy").open("r+b") as stream:
            stream.seek(start + number * array[:1].nbytes)
            stream.write(np.ascontiguousarray(array).tobytes())


def finish(folder: Path, final: Path, facts: Facts) -> None:
    """Sync the files of all ranks, and give the draft its name. Raises OSError."""
    (folder / _FACTS).write_text(json.dumps(facts, indent=2, sort_keys=True), encoding="utf-8")
    for path in folder.iterdir():
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
    if read(final) is None:  # else another run was first
        shutil.rmtree(final, ignore_errors=True)
        folder.replace(final)


@dataclass(frozen=True)
class CacheLocation:
    """The folder of the cache, and what features depend on beside weights and data."""

    folder: Path
    """The default folder."""
    computed: Mapping[str, str]
    """Precision and kernel: equal for runs that share features."""


def _make(
    rows: Callable[[SplitName, int], dict[str, np.ndarray]],
    counts: Mapping[SplitName, int],
    final: Path,
    facts: Facts,
    limit: float,
    world: World,
    show: Show,
) -> str | None:
    """Store the features of all inputs in `final`, `rows` by batch; the reason if impossible. Collective."""
    first, total, folder = rows("train", 0), sum(counts.values()), None
    needed = sum(array[:1].nbytes for array in first.values()) * total
    if needed > limit:
        return f"it needs {size(needed)}, and feature_cache.limit_gb is {limit / 1e9:g}"

    def begin() -> Path | None:
        if world.rank != 0:
            return None
        show(f"feature cache: {size(needed)} in {final}")
        final.parent.mkdir(parents=True, exist_ok=True)
        if (free := shutil.disk_usage(final.parent).free) < needed + _SPARE_BYTES:
            raise OSError(f"it needs {size(needed)}, and {final.parent} has {size(free)} free")
        return draft(final, first, total)

    def make(folder: Path) -> None:
        error: OSError | None = None
        batches = [(split, n) for split in SPLITS for n in range(0, counts[split], BATCH)]
        for turn in range(0, len(batches), world.size):
            # All ranks take equally many forward passes: a sharded model gathers weights in each.
            number = turn + world.rank
            split, start = batches[min(number, len(batches) - 1)]
            made = rows(split, start)
            try:
                if number < len(batches) and error is None:
                    write(folder, start + (counts["train"] if split == "val" else 0), made)
            except OSError as raised:
                error = raised
        if error is not None:
            raise error

    try:
        folder, error = attempt(world, begin, OSError)
        if error is None:
            name = world.broadcast(folder.name.encode() if folder else None).decode()
            _, error = attempt(world, lambda: make(final.parent / name), OSError)
        if error is None:
            _, error = attempt(world, lambda: finish(folder, final, facts) if folder else None, OSError)
        return error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def use(
    task: Task,
    model: Module,
    module: Module,
    engine: Engine,
    settings: FeatureCache,
    location: CacheLocation,
    show: Show,
) -> bool:
    """Let `task` return samples with cached features of its frozen encoder; True if it does.

    Features are computed now, or were by an earlier run. If that is impossible, `show` shows the
    reason and the encoder runs in each step. `module` is the prepared `model`; both have the
    initial weights of the run. Collective; touches disk. Raises DataError, and SettingError if
    `feature_cache.mode` is on and impossible.
    """
    part = task.frozen_encoder(model) if isinstance(task, HasFrozenEncoder) else None
    if not isinstance(task, HasFrozenEncoder) or part is None or settings.mode == "off":
        return False
    if change := task.varying_inputs():
        return _off(f"{change} changes the inputs of the encoder in each epoch", settings.mode, show)
    world, inputs = engine.world, {split: task.encoder_inputs(split) for split in SPLITS}
    facts: dict[str, Any] = {
        "version": 1,
        "encoder": weights_digest(engine.state(), part, world),
        "computed": {**location.computed, "device": world.device.type, "torch": torch.__version__},
    }
    if world.rank == 0:
        facts["inputs"] = {split: _identity(inputs[split]) for split in SPLITS}
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    root = Path(settings.folder or location.folder).expanduser()
    folder = root / f"features-{world.broadcast(digest.encode()).decode()}"

    def rows(split: SplitName, first: int) -> dict[str, np.ndarray]:
        """The features of a batch; the last batch is filled with the first inputs."""
        count = len(inputs[split])
        batch = inputs[split].batch([(first + n) % count for n in range(BATCH)])
        made = task.encode(module, on_device(batch, world.device))
        whole = {name: x.float() if x.dtype in HALVES else x for name, x in made.items()}
        return {name: x[: min(BATCH, count - first)].cpu().numpy() for name, x in whole.items()}

    if not world.agree(int(read(folder) is None)):
        show(f"feature cache: read from {folder}")
    else:
        module.eval()
        try:
            with torch.no_grad():
                counts = {split: len(inputs[split]) for split in SPLITS}
                reason = _make(rows, counts, folder, facts, settings.limit_gb * 1e9, world, show)
        finally:
            module.train()
        if reason is None and world.agree(int(read(folder) is None)):
            reason = f"not all ranks see {folder}; set feature_cache.folder to a shared folder"
        if reason is not None:
            return _off(reason, settings.mode, show)
    task.use_features({"train": Rows(folder), "val": Rows(folder, len(inputs["train"]))})
    return True


def _identity(inputs: EncoderInputs) -> dict[str, Any]:
    """Identifies inputs: what they were made from, and a digest of some of them."""
    digest = hashlib.sha256()
    for number in probes(len(inputs)):
        add(digest, inputs.batch([number]))
    return {"made_from": inputs.made_from, "count": len(inputs), "probes": digest.hexdigest()}


def _off(reason: str, mode: str, show: Show) -> bool:
    if mode == "on":
        raise SettingError("feature_cache.mode", mode, f"is impossible: {reason}", "auto, off")
    show(f"feature cache: off, the encoder runs in each step: {reason}")
    return False
