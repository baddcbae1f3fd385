"""The steps of a run to replay: from its second-to-last checkpoint to its last."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.config.provenance import ResetPart
from launcher.resume.find import Restart, SavedRun
from training.checkpoint.manifest import CheckpointError, Manifest

if TYPE_CHECKING:
    from training.checkpoint.reader import Checkpoint


@dataclass(frozen=True)
class Interval:
    """The steps between two checkpoints of a run."""

    source: Path | None
    """The checkpoint to start from; None: the start of the run."""
    start: int
    """The step of `source`."""
    end: int
    reset: tuple[ResetPart, ...] = ()
    """What the run reinitialized when it was resumed from `source`."""


def choose(run: SavedRun) -> tuple[Checkpoint, Interval, list[str]]:
    """The last or the named checkpoint, the interval that ends there, and notes about it.

    The interval starts at the last intact checkpoint before it, or at the start of the run. The
    checksums of both are verified. Raises CheckpointError if the last checkpoint is damaged.
    """
    from training.checkpoint.reader import open_checkpoint

    steps = list(run.checkpoints)
    end = steps[-1]
    if (named := run.named) is not None:
        end = next(step for step in steps if run.checkpoints[step].samefile(named))
    last = open_checkpoint(run.checkpoints[end])
    notes = []
    for step in reversed(steps[: steps.index(end)]):
        try:
            open_checkpoint(run.checkpoints[step])
        except CheckpointError as error:
            notes.append(f"skipped: {error}")
            continue
        interval = Interval(run.checkpoints[step], step, end, _reset(run, step, end))
        return last, interval, [*notes, *_restarts(run, interval, last.manifest)]
    notes.append("no earlier checkpoint: replayed from the start of the run")
    interval = Interval(None, 0, end)
    return last, interval, [*notes, *_restarts(run, interval, last.manifest)]


def _reset(run: SavedRun, step: int, end: int) -> tuple[ResetPart, ...]:
    here = [restart for restart in run.restarts(step, end) if restart.step == step]
    return here[-1].reset if here else ()


def _restarts(run: SavedRun, interval: Interval, last: Manifest) -> Iterator[str]:
    """Notes on restarts within the interval that changed the run; a replay has none."""
    for restart in run.restarts(interval.start, interval.end):
        if restart.step > interval.start and (changes := _changes(restart, last)):
            yield f"the run was resumed with changes at step {restart.step}: {'; '.join(changes)}"


def _changes(restart: Restart, last: Manifest) -> Sequence[str]:
    engine, world_size = restart.writer
    has_changed = restart.writer != (last.engine, last.world_size)
    return [
        *[f"from engine {engine}, world size {world_size}"] * has_changed,
        *(f"--reset {part}" for part in restart.reset),
        *restart.changes,
    ]
