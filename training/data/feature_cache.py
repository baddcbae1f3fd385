"""The feature cache: outputs of a frozen encoder, computed once before training, a file per batch."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from models.base import EncoderInputs, HasFrozenEncoder, SplitName
from training.agreement import attempt
from training.data.fingerprint import add, probes, weights_digest
from training.data.loader import on_device
from training.logging.quantities import size
from training.settings import SettingError

if TYPE_CHECKING:
    from torch.nn import Module

    from engines.base import Engine
    from models.base import Task
    from training.settings import FeatureCache

BATCH = 8
"""Inputs per forward pass: constant, so that the features are the same for any number of ranks and
any micro-batch. The number of rows of a matrix may change the rounding of its products."""
SPLITS: tuple[SplitName, ...] = ("train", "val")
HALVES = (torch.bfloat16, torch.float16)
"""Stored as fp32, as numpy has no bfloat16."""
_SPARE_BYTES = 64 * 2**20


class Rows:
    """The features of a split by number of input, mapped on access; can be pickled."""

    def __init__(self, folder: Path, split: SplitName) -> None:
        self._folder, self._split = folder, split

    def path(self, batch: int) -> Path:
        """The .npy file of a batch: a record for each input."""
        return self._folder / f"{self._split}-{batch:08d}.npy"

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:
        """A copy of the row of input `number` in each array."""
        batch, row = divmod(number, BATCH)
        # Mapped per row: pages of a permanent mapping would count as memory of this process.
        record = np.load(self.path(batch), mmap_mode="r")[row]
        return {name: np.array(record[name]) for name in record.dtype.names}


def use(
    task: Task,
    model: Module,
    module: Module,
    engine: Engine,
    settings: FeatureCache,
    default: Path,
    computed: Mapping[str, Any],
    show: Callable[[str], object],
) -> bool:
    """Let `task` return samples with cached features of its frozen encoder; True if it does.

    Computes those that no earlier run has stored. If that is impossible, `show`, which is silent on
    other ranks than 0, shows the reason, and the encoder runs in each step. `module` is the prepared
    `model`; both have the initial weights of the run. `computed`: what features depend on beside
    weights and data; `default`: the folder of all caches. Collective; touches disk. Raises DataError,
    and SettingError if `feature_cache.mode` is on and impossible.
    """
    if not isinstance(task, HasFrozenEncoder) or settings.mode == "off":
        return False
    part = task.frozen_encoder(model)
    if part is None:
        return False
    root = Path(settings.folder or default).expanduser()
    if change := task.varying_inputs():
        reason: str | None = f"{change} changes the inputs of the encoder in each epoch"
    else:
        folder = _folder(task, part, engine, root, computed)
        module.eval()
        try:
            with torch.no_grad():
                reason = _complete(task, module, engine, folder, settings.limit_gb * 1e9, show)
        finally:
            module.train()
    if reason is not None:
        if settings.mode == "on":
            raise SettingError("feature_cache.mode", "on", f"is impossible: {reason}", "auto, off")
        show(f"feature cache: off, the encoder runs in each step: {reason}")
        return False
    task.use_features({split: Rows(folder, split) for split in SPLITS})
    return True


def _folder(
    task: HasFrozenEncoder, part: str, engine: Engine, root: Path, computed: Mapping[str, Any]
) -> Path:
    """The folder below `root` of all that the features depend on. Collective."""
    world = engine.world
    facts: dict[str, Any] = {
        "version": 2,
        "encoder": weights_digest(engine.state(), part, world),
        "computed": {**computed, "device": world.device.type, "torch": torch.__version__},
    }
    if world.rank == 0:
        facts["inputs"] = {split: _identity(task.encoder_inputs(split)) for split in SPLITS}
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    return root / f"features-{world.broadcast(digest.encode()).decode()}"


def _identity(inputs: EncoderInputs) -> dict[str, Any]:
    """Identifies inputs: what they were made from, and a digest of some of them."""
    digest = hashlib.sha256()
    for number in probes(len(inputs)):
        add(digest, inputs.batch([number]))
    return {"made_from": inputs.made_from, "count": len(inputs), "probes": digest.hexdigest()}


def _complete(
    task: HasFrozenEncoder,
    module: Module,
    engine: Engine,
    folder: Path,
    limit: float,
    show: Callable[[str], object],
) -> str | None:
    """Compute the files that `folder` lacks, shared by the ranks; the reason if impossible. Collective."""
    world, inputs = engine.world, {split: task.encoder_inputs(split) for split in SPLITS}
    files = {
        Rows(folder, split).path(number): (given, number * BATCH)
        for split, given in inputs.items()
        for number in range(-(-len(given) // BATCH))
    }
    # Looked up by one rank: a network file system remembers for a while what is missing.
    names = [path.name for path in files if world.rank == 0 and not path.exists()]
    missing = [folder / name for name in json.loads(world.broadcast(json.dumps(names).encode()))]
    if not missing:
        show(f"feature cache: read from {folder}")

    def make_room() -> None:
        if world.rank == 0:
            folder.mkdir(parents=True, exist_ok=True)
            left = needed * len(missing) // len(files) + _SPARE_BYTES
            if (free := shutil.disk_usage(folder).free) < left:
                raise OSError(f"it needs {size(left)}, and {folder} has {size(free)} free")

    def make() -> None:
        error: OSError | None = None
        for turn in range(0, len(missing), world.size):
            # All ranks take equally many forward passes: a sharded model gathers weights in each.
            number = turn + world.rank
            path = missing[min(number, len(missing) - 1)]
            rows = _records(task, module, world.device, *files[path])
            try:
                if number < len(missing):
                    _store(path, rows)
            except OSError as raised:
                error = raised
        if error is not None:
            raise error

    if missing:
        first = _records(task, module, world.device, *files[missing[0]])
        needed = first[:1].nbytes * sum(map(len, inputs.values()))
        if needed > limit:
            return f"it needs {size(needed)}, and feature_cache.limit_gb is {limit / 1e9:g}"
        show(f"feature cache: {size(needed)} in {folder}")
        for action in (make_room, make):
            _, error = attempt(world, action, OSError)
            if error is not None:
                return error
    if world.agree(int(not all(path.exists() for path in files))):
        return f"not all ranks see {folder}; set feature_cache.folder to a shared folder"
    return None


def _records(
    task: HasFrozenEncoder, module: Module, device: torch.device, inputs: EncoderInputs, first: int
) -> np.ndarray:
    """The features of the batch from input `first` on; the last one is filled with the first inputs."""
    batch = inputs.batch([(first + n) % len(inputs) for n in range(BATCH)])
    made = {name: x.cpu() for name, x in task.encode(module, on_device(batch, device)).items()}
    arrays = {name: (x.float() if x.dtype in HALVES else x).numpy() for name, x in made.items()}
    form = [(name, array.dtype, array.shape[1:]) for name, array in arrays.items()]
    rows = np.empty(min(BATCH, len(inputs) - first), form)
    for name, array in arrays.items():
        rows[name] = array[: len(rows)]
    return rows


def _store(path: Path, rows: np.ndarray) -> None:
    """Write the file of a batch whole or not at all; other runs may write the same. Raises OSError."""
    staged = path.with_name(f".{uuid.uuid4().hex}")
    try:
        with staged.open("xb") as file:
            np.save(file, rows)
            file.flush()
            os.fsync(file.fileno())
        staged.replace(path)
    finally:
        staged.unlink(missing_ok=True)
