"""The background write of a checkpoint: this rank's shard, then rank 0's commit."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event, Thread

from training.checkpoint import manifest, retention
from training.checkpoint.checksums import BlockWriter
from training.checkpoint.manifest import CheckpointError, File, Manifest
from training.checkpoint.reader import WEIGHT, Checkpoint
from training.checkpoint.retention import Keep
from training.checkpoint.weights import write_weights
from training.optim import ema
from training.storage import StorageError, storage_errors, sync

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
        beside.write_bytes(manifest.render_part(file))
        beside.replace(whole)


def commit(draft: Draft, signals: Signals) -> None:
    """Wait for all ranks' files, write the rest, the manifest last, and give the folder its name.

    Touches disk. Raises CheckpointError, StorageError, OSError.
    """
    made = draft.made
    files = [_part(draft, rank, signals) for rank in range(draft.manifest.world_size)]
    files.append(_write(made / manifest.STATE, draft.state))
    if draft.manifest.score is not None:
        files.append(_write_model(made, replace(draft.manifest, files=tuple(files))))
    whole = replace(draft.manifest, files=tuple(files))
    content, checksum = manifest.render(whole)
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


class Signals:
    """What the main thread tells the one that writes."""

    def __init__(self) -> None:
        self.called_off = Event()
        """Some rank could not write its share: there will be no checkpoint."""
        self.all_written = Event()
        """Every rank has written its share."""


class Writing:
    """Runs `write` and then, where there is one, `commit` on a thread of its own."""

    def __init__(
        self, write: Callable[[], None], commit: Callable[[Signals], None] | None = None
    ) -> None:
        self.signals = Signals()
        self.written = Event()
        """This rank's share is on disk, or will never be."""
        self.over = Event()
        """So is what this rank does after it."""
        self.fault: str | None = None
        """Why it failed; to be read after one of the two."""
        self._write = write
        self._commit = commit
        # Nobody waits for it where the process ends otherwise: then there is no checkpoint.
        Thread(target=self._run, name="checkpoint", daemon=True).start()

    def _run(self) -> None:
        try:
            self._write()
            self.written.set()
            if self._commit is not None:
                self._commit(self.signals)
        except (OSError, StorageError, CheckpointError) as fault:
            self.fault = str(fault)
        except BaseException as fault:
            self.fault = f"{type(fault).__name__}: {fault}"
            raise
        finally:
            self.written.set()
            self.over.set()
