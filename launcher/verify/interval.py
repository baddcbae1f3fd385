"""Which steps of a run are taken again: from its last checkpoint but one to its last."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.resume.resume_point import Part
from launcher.resume.saved_run import Restart, SavedRun
from training.checkpoint.manifest import CheckpointError, Manifest

if TYPE_CHECKING:
    from training.checkpoint.reader import Checkpoint


@dataclass(frozen=True)
class Stretch:
    """The steps from one checkpoint of a run to a later one."""

    source: Path | None
    """The checkpoint to begin with; None: the very beginning."""
    after: int
    """Its step."""
    upto: int
    reset: tuple[Part, ...] = ()
    """What the run began anew when it went on from `source`."""


def choose(run: SavedRun) -> tuple[Checkpoint, Stretch, list[str]]:
    """The last checkpoint, or the one that was named; the steps that led to it; what to know.

    They begin with the whole checkpoint before it, or where the run began. Every byte of both is
    checked. Raises CheckpointError where the last one is damaged.
    """
    from training.checkpoint.reader import open_checkpoint

    steps = list(run.checkpoints)
    upto = steps[-1]
    if (named := run.named) is not None:
        upto = next(step for step in steps if run.checkpoints[step].samefile(named))
    last = open_checkpoint(run.checkpoints[upto])
    notes = []
    for step in reversed(steps[: steps.index(upto)]):
        try:
            open_checkpoint(run.checkpoints[step])
        except CheckpointError as fault:
            notes.append(f"passed over: {fault}")
            continue
        stretch = Stretch(run.checkpoints[step], step, upto, _reset(run, step, upto))
        return last, stretch, [*notes, *_restarts(run, stretch, last.manifest)]
    notes.append("there is no earlier checkpoint: replayed from the very beginning")
    stretch = Stretch(None, 0, upto)
    return last, stretch, [*notes, *_restarts(run, stretch, last.manifest)]


def _reset(run: SavedRun, step: int, upto: int) -> tuple[Part, ...]:
    here = [restart for restart in run.restarts(step, upto) if restart.step == step]
    return here[-1].reset if here else ()


def _restarts(run: SavedRun, stretch: Stretch, last: Manifest) -> Iterator[str]:
    """Where the run went on otherwise than a replay does, which takes all steps in one go."""
    for restart in run.restarts(stretch.after, stretch.upto):
        if restart.step > stretch.after and (others := _others(restart, last)):
            yield f"the run went on otherwise at step {restart.step}: {'; '.join(others)}"


def _others(restart: Restart, last: Manifest) -> Sequence[str]:
    engine, world_size = restart.writer
    has_changed = restart.writer != (last.engine, last.world_size)
    return [
        *[f"before that {engine} on {world_size}"] * has_changed,
        *(f"--reset {part}" for part in restart.reset),
        *restart.changes,
    ]
