"""The checkpoint writer: each rank writes its shard during training, then rank 0 commits."""

from __future__ import annotations

import platform
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from math import prod
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, TypeVar

import torch

from engines.base import State, World
from training.agreement import attempt, first_error
from training.callbacks.base import Facts
from training.checkpoint import manifest, retention, room, tensor_file
from training.checkpoint.checksums import BlockWriter
from training.checkpoint.host_copy import HostCopy
from training.checkpoint.manifest import CheckpointError, CheckpointFile, Manifest, Score
from training.checkpoint.retention import Keep
from training.checkpoint.tensor_file import EMA, WEIGHT, Interval
from training.storage import Storage, StorageError, storage_errors, sync

if TYPE_CHECKING:
    from training.checkpoint.reader import Checkpoint

_LIBRARIES = ("torch", "numpy", "deepspeed", "fairscale", "transformers")
_POLL_S = 0.02

T = TypeVar("T")


def _write_shard(path: Path, head: bytes, intervals: Sequence[Interval]) -> None:
    """Write what this rank holds, and tell rank 0 that it is complete."""
    file = tensor_file.write_rank_file(path, head, intervals)
    complete = path.with_name(f"{file.name}.part")
    staged = complete.with_name(f".{complete.name}")
    with storage_errors(staged):
        staged.write_bytes(manifest.render_part(file))
        staged.replace(complete)


class _BackgroundWrite:
    """Runs `write` and then `commit` (rank 0 only) on a thread, without collectives."""

    def __init__(self, write: Callable[[], None], commit: Callable[[_BackgroundWrite], None] | None) -> None:
        self.written = Event()
        """The shard of this rank is on disk, or its write failed."""
        self.done = Event()
        """`commit` has ended too."""
        self.error: str | None = None
        """Why it failed; valid after one of the two events."""
        self.canceled = Event()
        """From the main thread: some rank could not write, there will be no checkpoint."""
        self.all_written = Event()
        """From the main thread: every rank has written its shard."""
        self._write, self._commit = write, commit
        # A process that ends otherwise does not wait for the thread: then there is no checkpoint.
        Thread(target=self._run, name="checkpoint", daemon=True).start()

    def _run(self) -> None:
        try:
            self._write()
            self.written.set()
            if self._commit is not None:
                self._commit(self)
        except (OSError, StorageError, CheckpointError) as error:
            self.error = str(error)
        except BaseException as error:
            self.error = f"{type(error).__name__}: {error}"
            raise
        finally:
            self.written.set()
            self.done.set()


class CheckpointWriter:
    """Writes checkpoints into a run folder. Collective: `save` and `wait`; touches disk.

    In the background, a save copies the rank's shard to host memory and writes it while training
    continues. If any rank lacks the memory, all write from the tensors themselves and wait. An
    error on one rank is a CheckpointError on all; no incomplete checkpoint is left, and earlier
    ones stay as they were.
    """

    visibility_timeout_s = 60.0
    """How long files of other ranks may take to appear here; some network file systems look again
    for a missing file only after half a minute."""

    def __init__(self, storage: Storage, world: World, engine: str, keep: Keep, in_background: bool) -> None:
        self._storage, self._world, self._engine, self._keep = storage, world, engine, keep
        self._folder = storage.path / retention.CHECKPOINTS
        self._copy = HostCopy(world) if in_background else None
        self._write: _BackgroundWrite | None = None
        self._step = 0
        self._complete: Path | None = None
        if world.rank == 0:
            retention.sweep(storage.path)

    def save(self, step: int, state: State, facts: Facts, periodic: bool, score: Score | None) -> None:
        """Save `state` and `facts` of `step`. First waits for an earlier save and raises its error.

        `facts` is JSON, the same on every rank, with the number of "samples" seen. With a `score`,
        the weights are also written to a file of their own. When this returns, `state` may change.
        Raises CheckpointError.
        """
        self._finish()
        self._step, rank = step, self._world.rank
        intervals = tensor_file.rank_intervals(state, rank)
        head = self._on_all_ranks(lambda: tensor_file.rank_head(intervals, state.steps))
        own = len(head) + sum(interval.bytes for interval in intervals)
        needed = int(self._world.sum(torch.tensor([own])))
        if score is not None:
            needed += 4 * sum(prod(shape) for shape in state.shapes.values())
            needed += sum(buffer.nbytes for buffer in state.buffers.values())
        self._on_all_ranks(lambda: self._make_folder(needed))
        self._on_all_ranks(self._wait_for_folder)
        commit = self._on_all_ranks(lambda: self._prepare(state, facts, periodic, score))
        copies = self._copy.take(intervals) if self._copy is not None else None
        written = intervals if copies is None else copies
        path = self._unfinished / manifest.rank_file(rank)
        self._write = _BackgroundWrite(partial(_write_shard, path, head, written), commit)
        if copies is None:
            self._finish()

    @property
    def is_settled(self) -> bool:
        """Whether `wait` would return news at once: on rank 0, or an error of this rank.

        Not collective, and cheap.
        """
        if self._write is None:
            return self._complete is not None
        is_done = self._write.done.is_set()
        return is_done and (self._world.rank == 0 or self._write.error is not None)

    def wait(self) -> Path | None:
        """Wait for the last save; the folder that was completed since the last call, or None.

        Raises CheckpointError if it failed.
        """
        self._finish()
        complete, self._complete = self._complete, None
        return complete

    def checkpoint(self, step: int) -> Checkpoint:
        """The checkpoint of `step`, with all checksums verified. Collective; touches disk.

        Raises CheckpointError if it is missing or damaged.
        """
        from training.checkpoint import resume_point

        checkpoint = resume_point.choose(self._storage.path, self._world, step).checkpoint
        assert checkpoint is not None, "choose returns a named step or raises"
        return checkpoint

    def abandon(self) -> None:
        """After a failure: let the write of a lone process end. Not collective.

        Of several processes the others may be dead already: their checkpoint stays incomplete.
        """
        if self._write is not None and self._world.size == 1:
            self._write.done.wait()

    def _finish(self) -> None:
        if self._write is None:
            return
        write = self._write
        write.written.wait()
        error = first_error(self._world, write.error)
        if error is None:
            write.all_written.set()
            if self._world.rank == 0:
                write.done.wait()
            error = first_error(self._world, write.error)
        if error is not None:
            # All ranks agreed on the failure, so no rank writes there any more.
            write.canceled.set()
            write.done.wait()
        self._write = None
        self._check(error)
        self._complete = self._folder / manifest.step_folder(self._step)

    @property
    def _unfinished(self) -> Path:
        return retention.unfinished(self._storage, self._step)

    def _make_folder(self, needed: int) -> None:
        """Make the folder to write to, if there is room for `needed` bytes. Rank 0 only."""
        if self._world.rank != 0:
            return
        self._storage.check()
        run = self._storage.path
        if not run.is_dir():
            raise CheckpointError(f"{run} was moved or deleted during the run")
        with storage_errors(self._folder):
            self._folder.mkdir(exist_ok=True)
            lack = room.lacking(self._folder, needed)
        if lack is not None:
            raise CheckpointError(lack)
        shutil.rmtree(self._unfinished, ignore_errors=True)
        with storage_errors(self._unfinished):
            self._unfinished.mkdir()

    def _wait_for_folder(self) -> None:
        def poll() -> bool:
            time.sleep(_POLL_S)
            return True

        self._wait_for(self._unfinished, poll)

    def _prepare(
        self, state: State, facts: Facts, periodic: bool, score: Score | None
    ) -> Callable[[_BackgroundWrite], None] | None:
        """What rank 0 does once its shard is written; None: another rank."""
        if self._world.rank != 0:
            return None
        # Versions of the libraries that are loaded; imports none.
        loaded = {name: sys.modules[name] for name in _LIBRARIES if name in sys.modules}
        draft = Manifest(
            step=self._step,
            samples=int(facts["samples"]),
            engine=self._engine,
            world_size=self._world.size,
            periodic=periodic,
            libraries={
                "python": platform.python_version(),
                **{name: str(module.__version__) for name, module in loaded.items()},
            },
            files=(),
            score=score,
        )
        # Rendered now: changes during the write must not reach the file.
        return partial(self._commit, draft, manifest.render_state(state, facts), self._unfinished)

    def _commit(self, draft: Manifest, state: bytes, folder: Path, write: _BackgroundWrite) -> None:
        """Wait for all shards, write the other files and the manifest last, and publish `folder`.

        On the writing thread. Raises CheckpointError, StorageError, OSError.
        """
        files = [self._reported_shard(folder, rank, write) for rank in range(draft.world_size)]
        files.append(_written(folder / manifest.STATE, state))
        if draft.score is not None:
            from training.checkpoint.reader import Checkpoint
            from training.checkpoint.weights import write_weights

            # The weights that were evaluated: their moving average if there is one.
            source = Checkpoint(folder, replace(draft, files=tuple(files)))
            kind = EMA if EMA in source.kinds else WEIGHT
            files.append(write_weights(source, folder / manifest.MODEL, kind))
        content, checksum = manifest.render(replace(draft, files=tuple(files)))
        _written(folder / manifest.CHECKSUM_NAME, checksum)
        _written(folder / manifest.NAME, content)
        sync(folder)
        final = retention.publish(self._storage, draft.step)
        try:
            retention.settle(self._storage, final, self._keep)
        except OSError as error:
            raise CheckpointError(
                f"{final} is complete, but its links or older checkpoints cannot be changed: {error}"
            ) from error

    def _reported_shard(self, folder: Path, rank: int, write: _BackgroundWrite) -> CheckpointFile:
        def poll() -> bool:
            if write.canceled.wait(_POLL_S):
                raise CheckpointError("another rank could not write its shard")
            return write.all_written.is_set()

        path = folder / f"{manifest.rank_file(rank)}.part"
        self._wait_for(path, poll)
        file = manifest.read_part(path)
        path.unlink()
        return file

    def _wait_for(self, path: Path, poll: Callable[[], bool]) -> None:
        """Wait for what another rank has made, or will have once `poll`, which waits, is true."""
        deadline = None
        while not path.exists():
            if poll():
                deadline = deadline or time.monotonic() + self.visibility_timeout_s
                if time.monotonic() > deadline:
                    raise CheckpointError(
                        f"another rank made {path}, which did not appear within"
                        f" {self.visibility_timeout_s:g} s; all nodes must share the run folder"
                    )

    def _on_all_ranks(self, action: Callable[[], T]) -> T:
        """Run `action` on every rank; if it fails on one, all raise CheckpointError."""
        result, error = attempt(self._world, action, OSError, StorageError, CheckpointError)
        self._check(error)
        return result

    def _check(self, error: str | None) -> None:
        """Raise CheckpointError for the `error` that ranks agreed on."""
        if error is not None:
            if self._world.rank == 0:
                shutil.rmtree(self._unfinished, ignore_errors=True)
            raise CheckpointError(f"the checkpoint of step {self._step} cannot be saved: {error}")


def _written(path: Path, data: bytes) -> CheckpointFile:
    with BlockWriter(path) as writer:
        writer.write(data)
    return writer.file()
