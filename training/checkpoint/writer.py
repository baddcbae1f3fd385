"""Saves checkpoints: every rank its share, beside the training, whole on disk or not there."""

from __future__ import annotations

import platform
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, TypeVar

import torch

from engines.base import State, World
from training.agreement import first_error
from training.checkpoint import manifest, resume_point, retention, tensor_file
from training.checkpoint.commit import Draft, Signals, Writing, commit, leave_part
from training.checkpoint.host_copy import HostCopy, available_bytes
from training.checkpoint.manifest import CheckpointError, Manifest, Score
from training.checkpoint.reader import Checkpoint
from training.checkpoint.retention import Keep
from training.checkpoint.tensor_file import Interval
from training.logging.quantities import size
from training.storage import StorageError, storage_errors

_LIBRARIES = ("torch", "numpy", "deepspeed", "fairscale", "transformers")
# What the JSON files may need, and a margin for a file system that counts whole blocks.
_SPARE_BYTES = 16 * 2**20
_POLL_S = 0.05

T = TypeVar("T")


@dataclass(frozen=True)
class _Share:
    """What this rank writes."""

    path: Path
    head: bytes
    intervals: list[Interval]

    @property
    def bytes(self) -> int:
        return len(self.head) + sum(interval.bytes for interval in self.intervals)

    def write(self) -> None:
        file = tensor_file.write_rank_file(self.path, self.head, self.intervals)
        leave_part(self.path.parent, file)


class CheckpointWriter:
    """Saves checkpoints into the folder of a run. Collective: `save` and `wait`; touches disk.

    In the background a save copies the rank's share to host memory, if every rank has that much,
    and is written while training goes on; otherwise it is written from the tensors themselves.
    What fails on one rank fails on all, as CheckpointError, and leaves no half checkpoint; the
    earlier ones stay as they were.
    """

    patience_s = 60.0
    """How long what another rank has written may take to show here; some network file systems look
    again for a missing file only after half a minute."""

    def __init__(
        self,
        run: Path,
        world: World,
        engine: str,
        keep: Keep,
        in_background: bool,
        door: Path | None = None,
    ) -> None:
        """Every file is made in the `door`, where there is one; see training/storage.py."""
        self._run, self._door = run, door
        self._folder = run / retention.CHECKPOINTS
        self._world = world
        self._engine = engine
        self._keep = keep
        self._copy = HostCopy(world.device) if in_background else None
        self._writing: Writing | None = None
        self._step = 0
        self._whole: Path | None = None
        if world.rank == 0:
            retention.sweep(run)

    def save(
        self,
        step: int,
        state: State,
        facts: Mapping[str, Any],
        periodic: bool,
        score: Score | None,
    ) -> None:
        """Save `state` and `facts` of `step`; waits for an earlier save, whose fault it raises.

        `facts` is JSON of the loop's own, the same on every rank, with the number of "samples" seen
        among it. With a `verdict`, the weights are saved in a file of their own too. When this
        returns, `state` may change. Raises CheckpointError.
        """
        self._finish()
        self._step = step
        share = self._together(lambda: self._lay_out(step, state))
        needed = self._total(share.bytes) + (_model_bytes(state) if score else 0)
        self._together(lambda: self._make(needed))
        self._together(self._see)
        rest = self._together(lambda: self._rest(state, facts, periodic, score))
        copied = self._copied(share)
        self._writing = Writing((copied or share).write, rest)
        if copied is None:
            self._finish()

    @property
    def is_settled(self) -> bool:
        """There is news here that `wait` would give at once: rank 0's, or this rank's own fault.

        Not collective, and cheap.
        """
        if self._writing is None:
            return self._whole is not None
        is_over = self._writing.over.is_set()
        return is_over and (self._world.rank == 0 or self._writing.fault is not None)

    def wait(self) -> Path | None:
        """Wait for the last save; the folder that became whole since the last call, or None.

        Raises CheckpointError where it failed.
        """
        self._finish()
        whole, self._whole = self._whole, None
        return whole

    def checkpoint(self, step: int) -> Checkpoint:
        """The checkpoint of `step`, every byte of it checked, to read from. Collective.

        Raises CheckpointError where it is missing or damaged. Touches disk.
        """
        found = resume_point.choose(self._run, self._world, step).checkpoint
        assert found is not None, "a step that is named is there, or a fault"
        return found

    def abandon(self) -> None:
        """For a run that failed: let a lone process write to the end. Not collective.

        Of several processes the others may be dead already: what they were writing stays half.
        """
        if self._writing is not None and self._world.size == 1:
            self._writing.over.wait()

    def _finish(self) -> None:
        if self._writing is None:
            return
        writing = self._writing
        try:
            writing.written.wait()
            self._agree(writing.fault)
            writing.signals.all_written.set()
            if self._world.rank == 0:
                writing.over.wait()
            self._agree(writing.fault)
        except CheckpointError:
            # All ranks agreed that they failed, so nobody writes there any more.
            writing.signals.called_off.set()
            writing.over.wait()
            self._writing = None
            self._clear()
            raise
        self._writing = None
        self._whole = self._folder / manifest.step_folder(self._step)

    def _lay_out(self, step: int, state: State) -> _Share:
        intervals = tensor_file.rank_intervals(state, self._world.rank, self._world.size)
        path = self._made / manifest.rank_file(self._world.rank)
        return _Share(path, tensor_file.rank_head(intervals, state.steps), intervals)

    @property
    def _made(self) -> Path:
        return retention.unfinished(self._run, self._step, self._door)

    def _make(self, needed: int) -> None:
        """Make the folder that is written to, where there is room for `needed` bytes."""
        if self._world.rank != 0:
            return
        if not self._run.is_dir():
            raise CheckpointError(f"{self._run} is gone: it was moved or deleted during the run")
        with storage_errors(self._folder):
            self._folder.mkdir(exist_ok=True)
            free = shutil.disk_usage(self._folder).free
        if free < needed + _SPARE_BYTES:
            raise CheckpointError(
                f"it needs {size(needed + _SPARE_BYTES)}, and {self._folder} has {size(free)} free"
            )
        shutil.rmtree(self._made, ignore_errors=True)
        with storage_errors(self._made):
            self._made.mkdir()

    def _see(self) -> None:
        """Wait until the folder that rank 0 made is to be seen here."""
        deadline = time.monotonic() + self.patience_s
        while not self._made.is_dir():
            if time.monotonic() > deadline:
                raise CheckpointError(
                    f"{self._made}, which rank 0 has made, did not appear within"
                    f" {self.patience_s:g} s; the run folder must be one that all nodes share"
                )
            time.sleep(_POLL_S)

    def _rest(
        self, state: State, facts: Mapping[str, Any], periodic: bool, score: Score | None
    ) -> Callable[[Signals], None] | None:
        """What rank 0 does once its share is written."""
        if self._world.rank != 0:
            return None
        found = Manifest(
            step=self._step,
            samples=int(facts["samples"]),
            engine=self._engine,
            world_size=self._world.size,
            periodic=periodic,
            libraries=_libraries(),
            files=(),
            score=score,
        )
        # As bytes, so that what changes while it is written changes nothing in it.
        content = manifest.render_state(state, facts)
        place = (self._run, self._made)
        draft = Draft(*place, found, content, self._keep, self.patience_s, self._door)
        return partial(commit, draft)

    def _copied(self, share: _Share) -> _Share | None:
        """`share` with a copy of its tensors, if all ranks have the memory for one."""
        world, copy = self._world, self._copy
        if copy is None:
            return None
        missing = torch.tensor([copy.missing_bytes(share.intervals)])
        # Ranks of one machine share its memory, and look at it before any of them takes some.
        largest = int(world.maximum(missing)) * world.local_size
        if world.agree(int(largest > 0 and largest > available_bytes())):
            return None
        if world.agree(int(not copy.reserve(share.intervals))):
            copy.release()
            return None
        return _Share(share.path, share.head, copy.take(share.intervals))

    def _total(self, count: int) -> int:
        return int(self._world.sum(torch.tensor([count])))

    def _together(self, action: Callable[[], T]) -> T:
        """Run `action` on every rank; when it failed on one, all raise CheckpointError."""
        fault = None
        try:
            result = action()
        except (OSError, StorageError, CheckpointError) as raised:
            fault = str(raised)
        try:
            self._agree(fault)
        except CheckpointError:
            self._clear()
            raise
        return result

    def _agree(self, fault: str | None) -> None:
        told = first_error(self._world, fault)
        if told is not None:
            raise CheckpointError(f"the checkpoint of step {self._step} cannot be saved: {told}")

    def _clear(self) -> None:
        if self._world.rank == 0:
            shutil.rmtree(self._made, ignore_errors=True)


def _model_bytes(state: State) -> int:
    """About what the file of the weights alone takes."""
    parameters = sum(prod(shape) for shape in state.shapes.values())
    return 4 * parameters + sum(buffer.nbytes for buffer in state.buffers.values())


def _libraries() -> dict[str, str]:
    """Versions of what is loaded; nothing is imported for it."""
    loaded = {name: sys.modules[name] for name in _LIBRARIES if name in sys.modules}
    versions = {name: str(module.__version__) for name, module in loaded.items()}
    return {"python": platform.python_version(), **versions}
