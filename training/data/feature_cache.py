"""The feature cache: outputs of a frozen encoder, computed once, a file per batch."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gearshift.models.base import EncoderInputs, HasFrozenEncoder, SplitName
from gearshift.training.agreement import attempt
from gearshift.training.data.loader import on_device
from gearshift.training.data.samples import add, probes
from gearshift.training.logging.encoding import size
from gearshift.training.settings import SettingError
from gearshift.training.storage import atomic_write

if TYPE_CHECKING:
    from torch.nn import Module

    from gearshift.engines.base import Engine, State, World
    from gearshift.models.base import Task
    from gearshift.training.settings import FeatureCache

BATCH = 8
"""Inputs per forward pass: constant, so that the features are the same for any number of ranks and
any micro-batch. The number of rows of a matrix may change the rounding of its products."""
SPLITS: tuple[SplitName, ...] = ("train", "val")
HALVES = (torch.bfloat16, torch.float16)
"""Stored as fp32, as numpy has no bfloat16."""
_AT_ONCE = 2**16
# 2⁶⁴ over the golden ratio, as a signed number: Knuth, The Art of Computer Programming, 6.4.
_MIX = 0x9E3779B97F4A7C15 - 2**64


@dataclass(frozen=True)
class Rows:
    """The features of a split by number of input, mapped on access; can be pickled."""

    folder: Path
    split: SplitName

    def path(self, batch: int) -> Path:
        """The .npy file of a batch: a record for each input."""
        return self.folder / f"{self.split}-{batch:08d}.npy"

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
    other ranks than 0, shows the reason, and the encoder runs in each step. `module` is the
    prepared `model`; both have the initial weights of the run. `computed`: what features depend on
    beside weights and data; `default`: the folder of all caches. Collective; touches disk. Raises
    DataError, and SettingError if `feature_cache.mode` is on and impossible.
    """
    if not isinstance(task, HasFrozenEncoder) or settings.mode == "off":
        return False
    part = task.frozen_encoder(model)
    if part is None:
        return False
    reason = None
    change = task.varying_inputs()
    if change:
        reason = f"{change} changes the inputs of the encoder in each epoch"
    else:
        world = engine.world
        inputs = {split: task.encoder_inputs(split) for split in SPLITS}
        facts = {**computed, "version": 3, "device": world.device.type, "torch": torch.__version__}
        weights = weights_digest(engine.state(), part, world)
        name = _name([facts, weights], inputs, world)
        folder = Path(settings.folder or default).expanduser() / name
        module.eval()
        with torch.no_grad():
            rows = partial(_rows, task, module, world.device)
            reason = _complete(folder, inputs, rows, world, settings.limit_gb * 1e9, show)
        module.train()
    if reason is None:
        task.use_features({split: Rows(folder, split) for split in SPLITS})
    elif settings.mode == "on":
        raise SettingError(
            "feature_cache.mode",
            "on",
            f"is impossible: {reason}",
            "auto, off",
        )
    else:
        show(f"feature cache: off, the encoder runs in each step: {reason}")
    return reason is None


def _name(facts: Any, inputs: Mapping[SplitName, EncoderInputs], world: World) -> str:
    """The folder of features that depend on `facts` and `inputs`; rank 0 reads some. Collective."""
    digest = hashlib.sha256()
    add(digest, facts)
    if world.rank == 0:
        for split in inputs.values():
            count = len(split)
            samples = [split.batch([n]) for n in probes(count)]
            add(digest, [split.made_from, count, *samples])
    return "features-" + world.broadcast(digest.hexdigest()[:16].encode()).decode()


def _complete(
    folder: Path,
    inputs: Mapping[SplitName, EncoderInputs],
    rows: Callable[[EncoderInputs, int], np.ndarray],
    world: World,
    limit: float,
    show: Callable[[str], object],
) -> str | None:
    """Compute the files of `folder` that are missing; the reason if that is impossible. Collective.

    `rows` computes the features of a batch of inputs, by its number, and is collective too. Ranks
    share the work.
    """
    batches: list[tuple[Path, EncoderInputs, int]] = []
    for split, of_split in inputs.items():
        for number in range(-(-len(of_split) // BATCH)):
            batches.append((Rows(folder, split).path(number), of_split, number))

    def absent() -> list[int]:
        return [n for n, (path, *_) in enumerate(batches) if not path.exists()]

    # Looked up by one rank: a network file system remembers for a while what is missing.
    numbers = absent() if world.rank == 0 else []
    missing = [batches[n] for n in json.loads(world.broadcast(json.dumps(numbers).encode()))]
    actions: list[Callable[[], None]] = []
    if missing:
        _, first, number = missing[0]
        row_bytes = rows(first, number)[0].nbytes
        needed = row_bytes * sum(map(len, inputs.values()))
        left = row_bytes * BATCH * len(missing)
        actions.append(partial(_make_room, folder, needed, left, limit, show))
    else:
        show(f"feature cache: read from {folder}")

    def store(turn: int) -> None:
        # All ranks take equally many forward passes: a sharded model gathers weights in each.
        path, of_split, number = missing[min(turn + world.rank, len(missing) - 1)]
        content = io.BytesIO()
        np.save(content, rows(of_split, number))
        staged = path.with_name(uuid.uuid4().hex)  # other runs may write the same
        atomic_write(staged, content.getvalue())
        staged.replace(path)

    actions += [partial(store, turn) for turn in range(0, len(missing), world.size)]
    for action in actions:
        _, error = attempt(world, action, OSError)
        if error is not None:
            return error
    if world.agree(int(bool(absent()))):
        return f"not all ranks see {folder}; set feature_cache.folder to a shared folder"
    return None


def _make_room(
    folder: Path, needed: int, left: int, limit: float, show: Callable[[str], object]
) -> None:
    """Make `folder`. Raises OSError if all its files or those that are left do not fit."""
    if needed > limit:
        raise OSError(f"it needs {size(needed)}, and feature_cache.limit_gb is {limit / 1e9:g}")
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < left:
        raise OSError(f"it needs {size(left)}, and {folder} has {size(free)} free")
    show(f"feature cache: {size(needed)} in {folder}")


def _rows(
    task: HasFrozenEncoder,
    module: Module,
    device: torch.device,
    inputs: EncoderInputs,
    number: int,
) -> np.ndarray:
    """The features of a batch; the first inputs fill the last one."""
    numbers = range(number * BATCH, (number + 1) * BATCH)
    batch = inputs.batch([n % len(inputs) for n in numbers])
    arrays = {}
    for name, features in task.encode(module, on_device(batch, device)).items():
        if features.dtype in HALVES:
            features = features.float()
        arrays[name] = features.cpu().numpy()
    rows = np.empty(BATCH, [(name, array.dtype, array.shape[1:]) for name, array in arrays.items()])
    for name, array in arrays.items():
        rows[name] = array
    return rows


def weights_digest(state: State, part: str, world: World) -> str:
    """A digest of all weights and buffers below `part`, for any sharding. Collective.

    A sum over elements, each mixed with its position, so that ranks may hold any intervals.
    """
    total = torch.zeros((), dtype=torch.int64)
    for piece in state.pieces:
        if piece.kind != "weight" or not piece.name.startswith(f"{part}."):
            continue
        if piece.replica[0] != 0:
            continue
        data = piece.data
        key = int.from_bytes(hashlib.sha256(piece.name.encode()).digest()[:7], "big") + piece.start
        for first in range(0, data.numel(), _AT_ONCE):
            values = data[first : first + _AT_ONCE].detach().float().cpu()
            factors = (torch.arange(len(values)) + (first + key)).mul_(_MIX)
            # Products alone are linear: tensors with equal values in another order could change
            # places.
            factors.bitwise_xor_(factors >> 31).mul_(_MIX)
            # Odd factors: any change of one element changes the sum.
            total += (values.view(torch.int32).long() * factors.bitwise_or_(1)).sum()
    over_ranks = int(world.sum(total.to(world.device)))
    sha256 = hashlib.sha256(f"{over_ranks}".encode())
    add(sha256, {n: b.cpu() for n, b in state.buffers.items() if n.startswith(f"{part}.")})
    return sha256.hexdigest()[:32]
