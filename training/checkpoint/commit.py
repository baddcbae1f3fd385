"""The background write of a checkpoint: this rank's shard, then rank 0's commit."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event, Thread

from training.checkpoint import manifest, retention
from training.checkpoint.checksums import BlockWriter
from training.checkpoint.manifest import CheckpointError, CheckpointFile, Manifest
from training.checkpoint.reader import Checkpoint
from training.checkpoint.retention import Keep
from training.checkpoint.tensor_file import EMA, WEIGHT
from training.checkpoint.weights import write_weights
from training.storage import Storage, StorageError, storage_errors, sync

_POLL_S = 0.02


class Signals:
    """Events from the main thread to the writing thread."""

    def __init__(self) -> None:
        self.canceled = Event()
        """Some rank could not write its shard: there will be no checkpoint."""
        self.all_written = Event()
        """Every rank has written its shard."""


class BackgroundWrite:
    """Runs `write` and then `commit` (rank 0 only) on a thread, without collectives."""

    def __init__(
        self, write: Callable[[], None], commit: Callable[[Signals], None] | None = None
    ) -> None:
        self.signals = Signals()
        self.written = Event()
        """The shard of this rank is on disk, or its write failed."""
        self.done = Event()
        """`commit` has ended too."""
        self.error: str | None = None
        """Why it failed; valid after one of the two events."""
        self._write = write
        self._commit = commit
        # A process that ends otherwise does not wait for the thread: then there is no checkpoint.
        Thread(target=self._run, name="checkpoint", daemon=True).start()

    def _run(self) -> None:
        try:
            self._write()
            self.written.set()
            if self._commit is not None:
                self._commit(self.signals)
        except (OSError, StorageError, CheckpointError) as error:
            self.error = str(error)
        except BaseException as error:
            self.error = f"{type(error).__name__}: {error}"
            raise
        finally:
            self.written.set()
            self.done.set()


@dataclass(frozen=True)
class CheckpointDraft:
    """A checkpoint without its tensors, as of the moment of the save."""

    storage: Storage
    folder: Path
    """The hidden folder in which it is written."""
    manifest: Manifest
    """Without files."""
    state: bytes
    """The content of state.json."""
    keep: Keep
    visibility_timeout_s: float
    """How long the file of another rank may take to appear here."""


def report_shard(folder: Path, file: CheckpointFile) -> None:
    """Tell rank 0 that the shard of this rank is complete. Touches disk."""
    complete = folder / f"{file.name}.part"
    staged = complete.with_name(f".{complete.name}")
    with storage_errors(staged):
        staged.write_bytes(manifest.render_part(file))
        staged.replace(complete)


def commit(draft: CheckpointDraft, signals: Signals) -> None:
    """Wait for all shards, write the other files and the manifest last, and publish the folder.

    Touches disk. Raises CheckpointError, StorageError, OSError.
    """
    folder = draft.folder
    files = [_reported_shard(draft, rank, signals) for rank in range(draft.manifest.world_size)]
    files.append(_write(folder / manifest.STATE, draft.state))
    if draft.manifest.score is not None:
        files.append(_write_model(folder, replace(draft.manifest, files=tuple(files))))
    complete = replace(draft.manifest, files=tuple(files))
    content, checksum = manifest.render(complete)
    _write(folder / manifest.CHECKSUM_NAME, checksum)
    _write(folder / manifest.NAME, content)
    sync(folder)
    final = retention.publish(draft.storage, complete.step)
    try:
        retention.settle(draft.storage, final, draft.keep)
    except OSError as error:
        raise CheckpointError(
            f"{final} is complete, but its links or older checkpoints cannot be changed: {error}"
        ) from error


def _reported_shard(draft: CheckpointDraft, rank: int, signals: Signals) -> CheckpointFile:
    path = draft.folder / f"{manifest.rank_file(rank)}.part"
    deadline = None
    while not path.exists():
        if signals.canceled.wait(_POLL_S):
            raise CheckpointError("another rank could not write its shard")
        if signals.all_written.is_set():
            deadline = deadline or time.monotonic() + draft.visibility_timeout_s
            if time.monotonic() > deadline:
                raise CheckpointError(
                    f"rank {rank} has written its shard, but {path} did not appear within"
                    f" {draft.visibility_timeout_s:g} s; all nodes must share the run folder"
                )
    file = manifest.read_part(path)
    path.unlink()
    return file


def _write_model(folder: Path, draft: Manifest) -> CheckpointFile:
    """The weights that were evaluated: their moving average if there is one."""
    source = Checkpoint(folder, draft)
    kind = EMA if EMA in source.kinds else WEIGHT
    return write_weights(source, folder / manifest.MODEL, kind)


def _write(path: Path, data: bytes) -> CheckpointFile:
    with BlockWriter(path) as writer:
        writer.write(data)
    return writer.file()
