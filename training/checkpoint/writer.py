"""The checkpoint writer: each rank writes its shard in the background, and reports it."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar

import psutil
import torch

from gearshift.engines.base import Piece, State, World
from gearshift.training.agreement import attempt, first_error
from gearshift.training.callbacks.base import Facts
from gearshift.training.checkpoint import manifest, reader, retention, tensor_file
from gearshift.training.checkpoint.manifest import CheckpointError, Manifest, Score
from gearshift.training.checkpoint.retention import Keep
from gearshift.training.checkpoint.tensor_file import BUFFER, EMA, WEIGHT, file_bytes, file_dtype
from gearshift.training.resources import memory
from gearshift.training.storage import Storage, StorageError, storage_errors, sync

if TYPE_CHECKING:
    from torch import Tensor

    from gearshift.engines.base import Engine
    from gearshift.training.callbacks.base import CallbackList
    from gearshift.training.checkpoint.reader import Checkpoint
    from gearshift.training.settings import Save


_POLL_S = 0.02
_ALIGNMENT = 64
# Stays free for training, which continues during the write.
_SPARE_BYTES = 512 * 2**20

T = TypeVar("T")
_ERRORS = (OSError, StorageError, CheckpointError)


class HostCopy:
    """Host memory for a copy of a rank's shard, pinned for CUDA devices.

    It grows to the largest copy so far and is kept: a second copy needs no new pages.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._buffer: Tensor | None = None

    def take(self, pieces: Sequence[Piece]) -> list[Piece] | None:
        """A copy of `pieces` in their dtype of the file; None: a rank lacks the memory.

        Collective. Valid until the next copy.
        """
        world = self._world
        sizes = [-(-file_bytes(piece) // _ALIGNMENT) * _ALIGNMENT for piece in pieces]
        needed = sum(sizes)
        grows = self._buffer is None or self._buffer.numel() < needed
        # Ranks of one machine share its memory, and all check before any of them allocates.
        on_machine = needed * world.local_size if grows else 0
        if world.agree(int(on_machine > max(0, _available_bytes()))):
            return None
        if grows:
            self._buffer = None  # first: both together may be too much
            with suppress(OSError):
                self._buffer = world.host_memory(needed)
        if world.agree(int(self._buffer is None)):
            self._buffer = None
            return None

        assert self._buffer is not None
        copies = []
        is_cuda = world.device.type == "cuda"
        for piece, part in zip(pieces, self._buffer[:needed].split(sizes), strict=True):
            target = part[: file_bytes(piece)].view(file_dtype(piece))
            target.copy_(piece.data, non_blocking=is_cuda)
            copies.append(replace(piece, data=target))
        if is_cuda:
            torch.cuda.current_stream(world.device).synchronize()
        return copies


def _available_bytes() -> int:
    """Memory that this process may still allocate, minus a reserve; may be negative."""
    free = psutil.virtual_memory().available
    share = memory.container_memory()
    if share is not None:
        free = min(free, share.limit - share.used)
    return free - _SPARE_BYTES


def _in_background(work: Callable[[], object]) -> Future[None]:
    """Run `work`, which has no collective, on a thread.

    A process that ends does not wait for it: then there is no checkpoint.
    """
    ended: Future[None] = Future()

    def run() -> None:
        try:
            work()
            ended.set_result(None)
        except _ERRORS as error:
            ended.set_exception(error)
        except BaseException as error:
            ended.set_exception(error)
            raise

    Thread(target=run, name="checkpoint", daemon=True).start()
    return ended


class CheckpointWriter:
    """Writes checkpoints into a run folder. Collective: the constructor, `save` and `wait`.

    Touches disk.
    In the background, a save copies the rank's shard to host memory and writes it while training
    continues. If any rank lacks the memory, all write from the tensors themselves and wait. An
    error on one rank is a CheckpointError on all; no incomplete checkpoint is left, and earlier
    ones stay as they were.
    """

    visibility_timeout_s = 60.0
    """How long files of other ranks may take to appear here; some network file systems look again
    for a missing file only after half a minute."""

    def __init__(
        self,
        storage: Storage,
        world: World,
        engine: str,
        keep: Keep,
        in_background: bool,
        libraries: Mapping[str, str] | None = None,
    ) -> None:
        """`libraries` and their versions are recorded."""
        self._storage = storage
        self._world = world
        self._engine = engine
        self._libraries = libraries or {}
        self.keep = keep
        self._folder = storage.path / retention.CHECKPOINTS
        self._copy = HostCopy(world) if in_background else None
        self._shard: Future[None] | None = None
        self._commit: Future[None] | None = None
        self._deadline = 0.0  # For files of other ranks; infinite while they are being written
        self._step = 0
        self._complete: Path | None = None
        if world.rank == 0:
            retention.sweep(storage.path)
        world.wait_for_all()

    def save(
        self,
        step: int,
        state: State,
        facts: Facts,
        periodic: bool,
        score: Score | None,
    ) -> None:
        """Save `state` and `facts` of `step`. First waits for an earlier save; raises its error.

        `facts` is JSON, the same on every rank, with the number of "samples" seen. With a `score`,
        the weights are also written to a file of their own. When this returns, `state` may change.
        Raises CheckpointError.
        """
        self._finish()
        self._step = step
        world = self._world
        rank = world.rank
        pieces = tensor_file.rank_pieces(state, rank)
        size = 0
        for piece in pieces:
            is_copied = score is not None and piece.kind in (WEIGHT, BUFFER)
            size += file_bytes(piece) * (2 if is_copied else 1)
        needed = int(world.sum(torch.tensor([size])))

        def prepare() -> tuple[bytes, bytes]:
            head = tensor_file.rank_head(pieces, state.steps)
            if rank:
                return head, b""
            content = manifest.render_state(state, facts)
            self._make_folder(needed)
            return head, content

        # Now: changes during the write must not reach the files.
        head, content = self._on_all_ranks(prepare)
        folder = retention.unfinished(self._storage, step)
        self._deadline = time.monotonic() + self.visibility_timeout_s
        self._on_all_ranks(lambda: self._wait_for(folder))

        copies = None if self._copy is None else self._copy.take(pieces)
        path = folder / manifest.rank_file(rank)
        written = pieces if copies is None else copies
        self._deadline = math.inf
        self._shard = _in_background(lambda: _write_shard(path, head, written))
        if rank == 0:
            draft = Manifest(
                step=step,
                samples=int(facts["samples"]),
                engine=self._engine,
                world_size=world.size,
                periodic=periodic,
                libraries=self._libraries,
                files=(),
                score=score,
            )
            self._commit = _in_background(lambda: self._publish(draft, content, folder))
        if copies is None:
            self._finish()

    @property
    def is_settled(self) -> bool:
        """Whether `wait` would return news at once: on rank 0, or an error of this rank.

        Not collective, and cheap.
        """
        if self._shard is None:
            return self._complete is not None
        if self._shard.done() and self._shard.exception() is not None:
            return True
        return self._commit is not None and self._commit.done()

    def wait(self) -> Path | None:
        """Wait for the last save; the folder that was completed since the last call, or None.

        Raises CheckpointError if it failed.
        """
        self._finish()
        complete = self._complete
        self._complete = None
        return complete

    def checkpoint(self, step: int) -> reader.Checkpoint:
        """The checkpoint of `step`, with all checksums verified. Collective; touches disk.

        Raises CheckpointError if it is missing or damaged.
        """
        from gearshift.training.checkpoint.resume_point import choose  # where a best is loaded

        checkpoint, _ = choose(self._storage.path, self._world, step)
        assert checkpoint is not None, "choose returns a named step or raises"
        return checkpoint

    def abandon(self) -> None:
        """After a failure: let the write of a lone process end. Not collective.

        Of several processes the others may be dead already: their checkpoint stays incomplete.
        """
        if self._shard is not None and self._commit is not None and self._world.size == 1:
            self._shard.exception()
            self._deadline = 0.0  # if it failed
            self._commit.exception()

    def _finish(self) -> None:
        if self._shard is None:
            return
        error = self._first_error(self._shard)
        # Every shard is on disk and soon visible; or rank 0 need not wait for those that failed.
        self._deadline = 0.0 if error else time.monotonic() + self.visibility_timeout_s
        error = error or self._first_error(self._commit)
        self._shard = self._commit = None
        self._check(error)
        self._complete = self._folder / manifest.step_folder(self._step)

    def _first_error(self, ended: Future[None] | None) -> str | None:
        """Wait for background work of all ranks, however long; the first error, or None."""
        error = None if ended is None else ended.exception()
        text = None
        if error is not None:
            text = str(error) if isinstance(error, _ERRORS) else repr(error)
        self._world.wait_for_all()
        return first_error(self._world, text)

    def _make_folder(self, needed: int) -> None:
        """Make the folder to write to, if there is room for `needed` bytes."""
        self._storage.check()
        folder = retention.unfinished(self._storage, self._step)
        with storage_errors(folder):
            self._folder.mkdir(exist_ok=True)
            lack = retention.lacking(self._folder, needed)
            if lack is not None:
                raise CheckpointError(lack)
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()

    def _publish(self, draft: Manifest, state: bytes, folder: Path) -> None:
        """Wait for all shards, write the other files and the manifest last, and publish `folder`.

        On a thread of rank 0. Raises CheckpointError, StorageError, OSError.
        """
        files = []
        for rank in range(draft.world_size):
            complete = folder / f"{manifest.rank_file(rank)}.part"
            self._wait_for(complete)
            files.append(manifest.FILE.validate_json(complete.read_bytes()))
            complete.unlink()
        files.append(manifest.write_file(folder / manifest.STATE, [state]))
        if draft.score is not None:
            # The weights that were evaluated: their moving average if there is one.
            written = replace(draft, files=tuple(files))
            source = reader.Checkpoint(folder, written)
            kind = EMA if EMA in source.kinds else WEIGHT
            files.append(reader.write_weights(source, folder / manifest.MODEL, kind))
        content, checksum = manifest.render(replace(draft, files=tuple(files)))
        manifest.write_file(folder / manifest.CHECKSUM_NAME, [checksum])
        manifest.write_file(folder / manifest.NAME, [content])
        sync(folder)
        newest = retention.publish(self._storage, draft.step)
        retention.settle(self._storage, newest, self.keep)

    def _wait_for(self, path: Path) -> None:
        """Wait for what another rank makes."""
        while not path.exists():
            if time.monotonic() > self._deadline:
                raise CheckpointError(
                    f"another rank made {path}, which did not appear within"
                    f" {self.visibility_timeout_s:g} s; all nodes must share the run folder"
                )
            time.sleep(_POLL_S)

    def _on_all_ranks(self, action: Callable[[], T]) -> T:
        """Run `action` on every rank; if it fails on one, all raise CheckpointError."""
        result, error = attempt(self._world, action, *_ERRORS)
        self._check(error)
        return result

    def _check(self, error: str | None) -> None:
        """Raise CheckpointError for the `error` that ranks agreed on."""
        if error is not None:
            if self._world.rank == 0:
                shutil.rmtree(retention.unfinished(self._storage, self._step), ignore_errors=True)
            raise CheckpointError(f"the checkpoint of step {self._step} cannot be saved: {error}")


def _write_shard(path: Path, head: bytes, pieces: Sequence[Piece]) -> None:
    """Write what this rank holds, and tell rank 0 that it is complete."""
    file = tensor_file.write_rank_file(path, head, pieces)
    complete = path.with_name(f"{file.name}.part")
    staged = complete.with_name(f".{complete.name}")
    with storage_errors(staged):
        staged.write_bytes(manifest.FILE.dump_json(file))
        staged.replace(complete)


class CheckpointController:
    """Decides when a write is awaited, reports it, and applies `save.required`.

    Collective: save, wait, load_best.
    """

    def __init__(
        self,
        settings: Save,
        writer: CheckpointWriter,
        callbacks: CallbackList,
        first_step: int,
    ):
        self.writer = writer
        self._callbacks = callbacks
        self._waited_s = 0.0
        self._settings = settings
        self.saves_last = settings.last
        """Save when the run ends."""
        self.saves_on_signal = settings.on_signal
        """Save when a signal or a limit ends the run."""
        self.saved_step = first_step
        """The step of the newest checkpoint, or the first step: its state is on disk."""

    def save(self, step: int, *state: Any) -> None:
        """Save the `state` of `step`, as CheckpointWriter.save. Raises as `wait`."""
        self.wait()
        self.saved_step = step
        began = time.perf_counter()
        self._attempt(lambda: self.writer.save(step, *state))
        self._waited_s = time.perf_counter() - began
        if not self._settings.async_:
            self.wait()

    def wait(self) -> None:
        """Wait until the last save is on disk, and report it.

        Raises CheckpointError if it failed and `save.required` is on.
        """
        began = time.perf_counter()
        folder = self._attempt(self.writer.wait)
        if folder is not None:
            waited_s = self._waited_s + time.perf_counter() - began
            self._callbacks.saved(folder, self.saved_step, waited_s)

    def load_best(
        self,
        best: Facts | None,
        step: int,
        engine: Engine,
        load_average: Callable[[Checkpoint], None],
    ) -> int:
        """Load the weights of the `best` evaluation at the end of a run of `step` steps.

        The step of the weights: that of the best, or `step` if `save.load_best` is off. A missing
        checkpoint is a warning. Touches disk.
        """
        loads_best = self._settings.load_best and self._settings.keep_best > 0
        if not loads_best or best is None or best["step"] == step:
            return step
        self.wait()
        try:
            checkpoint = self.writer.checkpoint(best["step"])
        except CheckpointError as error:
            text = f"kept the last weights, not the best: {error}"
            self._callbacks.event("warning", {"text": text})
            return step
        from gearshift.training.checkpoint.restore import restore

        restore(checkpoint, engine, slots=False)
        load_average(checkpoint)
        self._callbacks.event("best_loaded", dict(best))
        return int(best["step"])

    def _attempt(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except CheckpointError as error:
            if self._settings.required:
                raise
            text = f"{error}; training continues because save.required is off"
            self._callbacks.event("warning", {"text": text})
            return None
