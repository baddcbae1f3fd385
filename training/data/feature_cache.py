"""The feature cache: outputs of a frozen encoder, computed once before training."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

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
_EVERY_S = 30.0
_SPARE_BYTES = 64 * 2**20
_FACTS, _LOCK = "made_from.json", "lock"


@dataclass(frozen=True)
class Form:
    """The dtype of an array, and the shape of a row."""

    dtype: str
    """In numpy notation, such as "<f4"."""
    row: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return np.dtype(self.dtype).itemsize * prod(self.row)


class Rows:
    """Rows by number, mapped from disk on access; can be pickled for other processes."""

    def __init__(self, folder: Path) -> None:
        """Reads the heads of the files. Raises OSError, or ValueError for an incomplete file."""
        self._arrays: dict[str, tuple[Path, Form, int]] = {}
        for path in sorted(folder.glob("*.npy")):
            form, count, start = _head(path)
            if path.stat().st_size != start + count * form.row_bytes:
                raise ValueError(f"{path} is incomplete")
            self._arrays[path.stem] = path, form, start

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:
        """A copy of row `number` of each array."""
        rows = {}
        for name, (path, form, start) in self._arrays.items():
            offset = start + number * form.row_bytes
            # Mapped per row: pages of a permanent mapping would count as memory of this process.
            rows[name] = np.array(np.memmap(path, form.dtype, "r", offset, form.row))
        return rows


def read(folder: Path) -> Rows | None:
    """The rows in `folder`; None: there are none, or they are incomplete. Touches disk."""
    try:
        return Rows(folder) if (folder / _FACTS).is_file() else None
    except (OSError, ValueError):
        return None


class FeatureDraft:
    """Arrays being written, in a temporary folder beside the final one; made by one rank.

    Deletes drafts of killed processes, whose locks are free.
    """

    def __init__(self, final: Path, forms: Mapping[str, Form], count: int) -> None:
        """Creates files of full size without content. Raises OSError."""
        final.parent.mkdir(parents=True, exist_ok=True)
        prefix = f".{final.name}-"
        for left in final.parent.glob(f"{prefix}*"):
            with suppress(OSError):
                if lock := _locked((left / _LOCK).open("r+b")):
                    shutil.rmtree(left, ignore_errors=True)
                    lock.close()
        self.folder = Path(tempfile.mkdtemp(prefix=prefix, dir=final.parent))
        self._final = final
        self._lock = _locked((self.folder / _LOCK).open("wb"))
        for name, form in forms.items():
            with (self.folder / f"{name}.npy").open("wb") as stream:
                facts = {"descr": form.dtype, "fortran_order": False, "shape": (count, *form.row)}
                np.lib.format.write_array_header_1_0(stream, facts)
                stream.truncate(stream.tell() + count * form.row_bytes)

    def finish(self, facts: Mapping[str, object]) -> None:
        """Sync the files of all ranks, and rename the folder. Raises OSError."""
        text = json.dumps(facts, indent=2, sort_keys=True)
        (self.folder / _FACTS).write_text(text, encoding="utf-8")
        for path in self.folder.glob("*.npy"):
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
        if read(self._final) is None:  # else another run was first
            shutil.rmtree(self._final, ignore_errors=True)
            self.folder.replace(self._final)
            (self._final / _LOCK).unlink()
        self.abandon()

    def abandon(self) -> None:
        """Delete the draft, if it was not finished."""
        if self._lock is not None:
            self._lock.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def write(folder: Path, number: int, rows: Mapping[str, np.ndarray]) -> None:
    """Write `rows` of each array into a draft, from row `number` on. Raises OSError."""
    for name, array in rows.items():
        path = folder / f"{name}.npy"
        form, _, start = _head(path)
        with path.open("r+b", buffering=0) as stream:
            stream.seek(start + number * form.row_bytes)
            left = memoryview(np.ascontiguousarray(array, form.dtype).tobytes())
            while left:
                left = left[stream.write(left) :]


def _head(path: Path) -> tuple[Form, int, int]:
    """The form of an array, its number of rows, and the offset of the first."""
    with path.open("rb") as stream:
        np.lib.format.read_magic(stream)
        (count, *row), _, dtype = np.lib.format.read_array_header_1_0(stream)
        return Form(dtype.str, tuple(row)), count, stream.tell()


def _locked(stream: IO[bytes]) -> IO[bytes] | None:
    """The open file, locked until it is closed; None: another process has the lock."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        stream.close()
        return None
    return stream


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
                at = starts[split] + first
                error = _disk_error(folder, partial(write, folder, at, rows))
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
    inputs = {split: task.encoder_inputs(split) for split in SPLITS}
    world = engine.world
    facts: dict[str, Any] = {
        "version": 1,
        "encoder": weights_digest(engine.state(), part, world),
        "computed": {**location.computed, "device": world.device.type, "torch": torch.__version__},
    }
    if world.rank == 0:
        facts["inputs"] = {split: _identity(inputs[split]) for split in SPLITS}
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


def _on_all_ranks(folder: Path, world: World) -> Rows | None:
    """The rows in `folder`, if every rank sees them. Collective."""
    rows = read(folder)
    return None if world.agree(int(rows is None)) else rows
