"""The feature cache: outputs of a frozen encoder, computed once before training."""

from __future__ import annotations

import hashlib
import json
import shutil
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
from training.data import feature_file as files
from training.data.feature_file import FeatureDraft, Form, Rows
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
_BATCH = 8
"""Inputs per forward pass: constant, so that the features are the same for any number of ranks and
any micro-batch. The number of rows of a matrix may change the rounding of its products."""
_SPLITS: tuple[SplitName, ...] = ("train", "val")
_EVERY_S = 30.0
_SPARE_BYTES = 64 * 2**20


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
        count = min(_BATCH, len(inputs) - first)
        batch = inputs.batch([(first + n) % len(inputs) for n in range(_BATCH)])
        made = self.task.encode(self.module, on_device(batch, self.world.device))
        halves = (torch.bfloat16, torch.float16)
        return {
            name: (tensor.float() if tensor.dtype in halves else tensor)[:count].cpu().numpy()
            for name, tensor in made.items()
        }

    def fill(self, folder: Path) -> str | None:
        """Write this rank's share into the draft in `folder`; the error if the write failed."""
        requests = [(s, n) for s in _SPLITS for n in range(0, len(self.inputs[s]), _BATCH)]
        starts = {"train": 0, "val": len(self.inputs["train"])}
        error, size = None, self.world.size
        began = shown_at = time.monotonic()
        for turn in range(0, len(requests), size):
            number = turn + self.world.rank
            # All ranks take equally many forward passes: a sharded model gathers weights in each.
            split, first = requests[min(number, len(requests) - 1)]
            rows = self.rows(split, first)
            if number < len(requests) and error is None:
                at = starts[split] + first
                error = _disk_error(folder, partial(files.write, folder, at, rows))
            now = time.monotonic()
            if turn and now - shown_at > _EVERY_S:
                shown_at = now
                minutes = round((now - began) / turn * (len(requests) - turn) / 60)
                left = f"about {max(1, minutes)} min left"
                self.show(f"feature cache: {turn / len(requests):.0%}, {left}")
        return error


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
    mode = settings.mode
    limit, root = settings.limit_gb * 1e9, Path(settings.folder or location.folder).expanduser()
    if change := task.varying_inputs():
        return _off(f"{change} changes the inputs of the encoder in each epoch", mode, show)
    inputs = {split: task.encoder_inputs(split) for split in _SPLITS}
    world = engine.world
    facts: dict[str, Any] = {
        "version": 1,
        "encoder": weights_digest(engine.state(), part, world),
        "computed": {**location.computed, "device": world.device.type, "torch": torch.__version__},
    }
    if world.rank == 0:
        facts["inputs"] = {split: _identity(inputs[split]) for split in _SPLITS}
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    folder = root / f"features-{world.broadcast(digest.encode()).decode()}"
    rows = _on_all_ranks(folder, world)
    if rows is not None:
        show(f"feature cache: read from {folder}")
    else:
        module.eval()
        try:
            with torch.no_grad():
                reason = _make(_Pass(task, module, world, inputs, show), folder, facts, limit)
        finally:
            module.train()
        if reason is not None:
            return _off(reason, mode, show)
        rows = _on_all_ranks(folder, world)
        if rows is None:
            reason = f"not all ranks see {folder}; set feature_cache.folder to a shared folder"
            return _off(reason, mode, show)
    task.use_features({"train": rows, "val": _From(rows, len(inputs["train"]))})
    return True


@dataclass(frozen=True)
class _From:
    """The rows of a split, which start at a number."""

    rows: Rows
    first: int

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:
        return self.rows[self.first + number]


def _make(run: _Pass, folder: Path, facts: Mapping[str, Any], limit: float) -> str | None:
    """Compute all features and store them in `folder`; the reason if impossible. Collective."""
    world, parent = run.world, folder.parent
    forms = {n: Form(a.dtype.str, a.shape[1:]) for n, a in run.rows("train", 0).items()}
    count = sum(len(inputs) for inputs in run.inputs.values())
    needed = sum(form.row_bytes for form in forms.values()) * count
    if needed > limit:
        return f"it needs {size(needed)}, and feature_cache.limit_gb is {limit / 1e9:g}"
    draft: FeatureDraft | None = None
    error: str | None = None

    def start() -> None:
        nonlocal draft, error
        parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(parent).free
        if free < needed + _SPARE_BYTES:
            error = f"it needs {size(needed)}, and {parent} has {size(free)} free"
        else:
            draft = FeatureDraft(folder, forms, count)

    if world.rank == 0:
        run.show(f"feature cache: {size(needed)} in {folder}")
        error = _disk_error(parent, start) or error
    if first := first_error(world, error):
        return first
    staging = parent / world.broadcast((draft.folder.name if draft else "").encode()).decode()
    try:
        first = first_error(world, run.fill(staging))
        if first is None and draft is not None:
            error = _disk_error(draft.folder, partial(draft.finish, facts))
        return first or first_error(world, error)
    finally:
        if draft is not None:
            draft.abandon()


def _disk_error(folder: Path, write: Callable[[], None]) -> str | None:
    """The error of `write`, which writes into `folder`; None: it succeeded."""
    try:
        write()
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


def _on_all_ranks(folder: Path, world: World) -> Rows | None:
    """The rows in `folder`, if every rank sees them. Collective."""
    rows = files.read(folder)
    return None if world.agree(int(rows is None)) else rows
