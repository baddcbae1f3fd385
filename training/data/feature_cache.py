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
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from models.base import EncoderInputs, HasFrozenEncoder, SplitName
from training.agreement import first_error
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
_EVERY_S, _KILLED_S = 30.0, 86400.0
"""Between two lines about the progress; without a write in it, a draft is of a killed process."""
_SPARE_BYTES = 64 * 2**20
_FACTS = "made_from.json"


class Rows:
    """Rows by number, mapped from .npy files on access; can be pickled for other processes."""

    def __init__(self, folder: Path, first: int = 0) -> None:
        """Row 0 is the row `first` of the files. Raises OSError, and ValueError for a short file."""
        self._first, self._heads = first, {}
        for path in sorted(folder.glob("*.npy")):
            array = np.lib.format.open_memmap(path, "r")
            self._heads[path.stem] = path, array.dtype, array.shape[1:], array.offset, array[:1].nbytes
        if not self._heads or not (folder / _FACTS).is_file():
            raise ValueError(f"{folder} is incomplete")

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:
        """A copy of row `number` of each array."""
        rows = {}
        for name, (path, dtype, row, start, row_bytes) in self._heads.items():
            offset = start + (self._first + number) * row_bytes
            # Mapped per row: pages of a permanent mapping would count as memory of this process.
            rows[name] = np.array(np.memmap(path, dtype, "r", offset, row))
        return rows


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


def finish(folder: Path, final: Path, facts: Mapping[str, object]) -> None:
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


@dataclass
class _Pass:
    """One pass of the encoder over all inputs, split over the ranks. Collective."""

    task: HasFrozenEncoder
    module: Module
    world: World
    inputs: Mapping[SplitName, EncoderInputs]
    show: Show

    def rows(self, split: SplitName, first: int) -> dict[str, np.ndarray]:
        """The features of a batch; the last batch is filled with the first inputs."""
        inputs = self.inputs[split]
        count = min(BATCH, len(inputs) - first)
        batch = inputs.batch([(first + n) % len(inputs) for n in range(BATCH)])
        made = self.task.encode(self.module, on_device(batch, self.world.device))
        return {
            name: (tensor.float() if tensor.dtype in HALVES else tensor)[:count].cpu().numpy()
            for name, tensor in made.items()
        }

    def fill(self, folder: Path) -> str | None:
        """Write this rank's share into the draft in `folder`; the error if the write failed."""
        requests = [(s, n) for s in SPLITS for n in range(0, len(self.inputs[s]), BATCH)]
        starts = {"train": 0, "val": len(self.inputs["train"])}
        error, size = None, self.world.size
        began = shown_at = time.monotonic()
        for turn in range(0, len(requests), size):
            number = turn + self.world.rank
            # All ranks take equally many forward passes: a sharded model gathers weights in each.
            split, first = requests[min(number, len(requests) - 1)]
            rows = self.rows(split, first)
            if number < len(requests) and error is None:
                error = _disk_error(folder, partial(write, folder, starts[split] + first, rows))
            now = time.monotonic()
            if turn and now - shown_at > _EVERY_S:
                shown_at = now
                minutes = round((now - began) / turn * (len(requests) - turn) / 60)
                self.show(f"feature cache: {turn / len(requests):.0%}, about {max(1, minutes)} min left")
        return error

    def make(self, final: Path, facts: Mapping[str, Any], limit: float) -> str | None:
        """Compute all features and store them in `final`; the reason if impossible."""
        rows, count = self.rows("train", 0), sum(len(inputs) for inputs in self.inputs.values())
        needed = sum(array[:1].nbytes for array in rows.values()) * count
        if needed > limit:
            return f"it needs {size(needed)}, and feature_cache.limit_gb is {limit / 1e9:g}"
        made: list[Path] = []

        def start() -> None:
            final.parent.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(final.parent).free
            if free < needed + _SPARE_BYTES:
                raise OSError(f"it needs {size(needed)}, and {final.parent} has {size(free)} free")
            made.append(draft(final, rows, count))

        error = None
        if self.world.rank == 0:
            self.show(f"feature cache: {size(needed)} in {final}")
            error = _disk_error(final.parent, start)
        try:
            if first := first_error(self.world, error):
                return first
            name = self.world.broadcast(made[0].name.encode() if made else None)
            first = first_error(self.world, self.fill(final.parent / name.decode()))
            if first is None and made:
                error = _disk_error(final.parent, partial(finish, made[0], final, facts))
            return first or first_error(self.world, error)
        finally:
            for folder in made:
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
    mode, world = settings.mode, engine.world
    if change := task.varying_inputs():
        return _off(f"{change} changes the inputs of the encoder in each epoch", mode, show)
    inputs = {split: task.encoder_inputs(split) for split in SPLITS}
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
    if not world.agree(int(read(folder) is None)):
        show(f"feature cache: read from {folder}")
    else:
        module.eval()
        try:
            with torch.no_grad():
                run = _Pass(task, module, world, inputs, show)
                reason = run.make(folder, facts, settings.limit_gb * 1e9)
        finally:
            module.train()
        if reason is None and world.agree(int(read(folder) is None)):
            reason = f"not all ranks see {folder}; set feature_cache.folder to a shared folder"
        if reason is not None:
            return _off(reason, mode, show)
    task.use_features({"train": Rows(folder), "val": Rows(folder, len(inputs["train"]))})
    return True


def _disk_error(folder: Path, action: Callable[[], None]) -> str | None:
    """The error of `action`, which writes into `folder`; None: it succeeded."""
    try:
        action()
    except OSError as error:
        return f"{folder} cannot be written: {error.strerror or error}"
    return None


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
