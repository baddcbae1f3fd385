"""What rank 0 does once all ranks have written: the rest of the files, the name, the links."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

from training.checkpoint import manifest, retention
from training.checkpoint.background import Signals
from training.checkpoint.blocks import BlockWriter
from training.checkpoint.manifest import CheckpointError, File, Manifest
from training.checkpoint.reader import WEIGHT, Checkpoint
from training.checkpoint.retention import Keep
from training.checkpoint.weights import write_weights
from training.optim import ema
from training.storage import storage_errors, sync

_POLL_S = 0.02


@dataclass(frozen=True)
class Draft:
    """A checkpoint but for its tensors, as it was when it was asked for."""

    run: Path
    made: Path
    """The hidden folder that it is made in."""
    manifest: Manifest
    """Without its files."""
    state: bytes
    """The content of state.json."""
    keep: Keep
    patience_s: float
    """How long a file that another rank has written may take to show here."""
    door: Path | None = None
    """What it gets its name through."""


def leave_part(made: Path, file: File) -> None:
    """Tell rank 0 that the `file` of this rank is whole. Touches disk."""
    whole = made / f"{file.name}.part"
    beside = whole.with_name(f".{whole.name}")
    with storage_errors(beside):
        beside.write_bytes(manifest.encoded_part(file))
        beside.replace(whole)


def commit(draft: Draft, signals: Signals) -> None:
    """Wait for all ranks' files, write the rest, the manifest last, and give the folder its name.

    Touches disk. Raises CheckpointError, StorageError, OSError.
    """
    made = draft.made
    files = [_part(draft, rank, signals) for rank in range(draft.manifest.world_size)]
    files.append(_write(made / manifest.STATE, draft.state))
    if draft.manifest.verdict is not None:
        files.append(_write_model(made, replace(draft.manifest, files=tuple(files))))
    whole = replace(draft.manifest, files=tuple(files))
    content, checksum = manifest.encoded(whole)
    _write(made / manifest.CHECKSUM_NAME, checksum)
    _write(made / manifest.NAME, content)
    sync(made)
    final = retention.publish(draft.run, whole.step, draft.door)
    try:
        retention.settle(draft.run, final, draft.keep, draft.door)
    except OSError as fault:
        raise CheckpointError(
            f"{final} is whole, but its links or older checkpoints cannot be changed: {fault}"
        ) from fault


def _part(draft: Draft, rank: int, signals: Signals) -> File:
    path = draft.made / f"{manifest.rank_file(rank)}.part"
    deadline = None
    while not path.exists():
        if signals.called_off.wait(_POLL_S):
            raise CheckpointError("another rank could not write its part")
        if signals.all_written.is_set():
            deadline = deadline or time.monotonic() + draft.patience_s
            if time.monotonic() > deadline:
                raise CheckpointError(
                    f"rank {rank} has written its part, but {path} did not appear within"
                    f" {draft.patience_s:g} s; the run folder must be one that all nodes share"
                )
    file = manifest.read_part(path)
    path.unlink()
    return file


def _write_model(made: Path, draft: Manifest) -> File:
    """The weights that the verdict is about: the average of them where there is one."""
    source = Checkpoint(made, draft)
    kind = ema.KIND if ema.KIND in source.kinds else WEIGHT
    return write_weights(source, made / manifest.MODEL, kind)


def _write(path: Path, data: bytes) -> File:
    with BlockWriter(path) as writer:
        writer.write(data)
    return writer.file()
