"""The resume point of a run: the newest whole checkpoint, or one by its step, and what is reset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.base import DataError
from training.callbacks.base import Emit, Facts
from training.checkpoint import checksums, manifest, retention
from training.checkpoint.manifest import CheckpointError, CheckpointUnreadable, read_error
from training.checkpoint.reader import Checkpoint, open_checkpoint
from training.train_plan import StartSteps

if TYPE_CHECKING:
    from engines.base import World


_DAMAGED, _UNREADABLE = 1, 2  # Flags that the ranks agree on
_SHOWN = 3  # Changed files that are named


@dataclass(frozen=True)
class ResumePoint:
    """A verified checkpoint to resume from, and how the run uses it."""

    checkpoint: Checkpoint
    reset: frozenset[str] = frozenset()
    """Any of "optimizer", "schedule", "data"."""
    changes: Sequence[str] = ()
    """Differences from the settings of the checkpoint, a line each."""
    damaged: Mapping[int, str] = field(default_factory=dict)
    """Errors of later, damaged checkpoints by step."""
    is_fork: bool = False
    """The run continues in another folder, which lacks the best checkpoint so far."""

    @property
    def step(self) -> int:
        """Updates taken before."""
        return self.checkpoint.manifest.step

    @property
    def starts(self) -> StartSteps:
        """The start steps of the resumed run."""
        starts = StartSteps(**self.fact("starts", {}))
        if "schedule" in self.reset:
            starts = replace(starts, schedule=self.step)
        if "data" in self.reset:
            samples = self.checkpoint.manifest.samples
            starts = replace(starts, data=self.step, samples_before=samples)
        return starts

    def fact(self, name: str, missing: Any = None) -> Any:
        """The fact `name` that the loop saved; `missing` if the checkpoint does not have it."""
        value = self.checkpoint.facts.get(name)
        return missing if value is None else value

    def check_data(self, data: Facts) -> None:
        """Compare `data` with the data of the checkpoint. Raises DataError if it has changed."""
        if "data" in self.reset:
            return
        change = changed_data(self.fact("data", {}), data)
        if change is not None:
            raise DataError(
                f"the data has changed since the checkpoint of step {self.step}: {change}",
                where="data.path",
                allowed="the same data; or --reset data, which restarts its order",
                fix="--reset data",
            )

    def report(self, event: Emit) -> None:
        """Report the event "resumed", and a warning for each damaged checkpoint."""
        written = self.checkpoint.manifest
        facts = {
            "checkpoint": self.checkpoint.folder.name,
            "written_by": {"engine": written.engine, "world_size": written.world_size},
            "changes": list(self.changes),
            "reset": sorted(self.reset),
            "damaged": {f"{step}": text for step, text in self.damaged.items()},
        }
        event("resumed", facts)
        for text in self.damaged.values():
            event("warning", {"text": f"{text}; resumed from an earlier one"})


def changed_data(before: Facts, now: Facts) -> str | None:
    """How the data of two checkpoints differs, by all that both tell of it; None: it does not."""
    old, new = (data.get("files") for data in (before, now))
    if old is not None and new is not None and old != new:
        files = [f"{name} is gone" for name in sorted(old.keys() - new.keys())]
        files += [f"{name} is new" for name in sorted(new.keys() - old.keys())]
        files += [f"{n} has changed" for n in sorted(old) if n in new and old[n] != new[n]]
        more = f" and {len(files) - _SHOWN} more" if len(files) > _SHOWN else ""
        return ", ".join(files[:_SHOWN]) + more
    texts = {
        "samples": "{1} training samples instead of {0}",
        "fingerprint": "the training samples differ",
        "validation": "the validation samples differ",
    }
    for name, text in texts.items():
        if name in before and name in now and before[name] != now[name]:
            return text.format(before[name], now[name])
    return None


@dataclass(frozen=True)
class ChosenCheckpoint:
    """A checkpoint with all checksums verified; None: there is none."""

    checkpoint: Checkpoint | None
    damaged: Mapping[int, str]
    """Errors of later checkpoints by step, as far as this rank knows them."""


def choose(run: Path, world: World, step: int | None) -> ChosenCheckpoint:
    """The newest whole checkpoint of `run`, or the one of `step`. Collective; touches disk.

    Each rank verifies a part of the checksums before any byte is used. Raises CheckpointError on
    every rank if the one of `step` is missing or damaged, and CheckpointUnreadable if a rank may
    not read one: it may be whole. First completes a rename that a kill interrupted.
    """
    if world.rank == 0:
        retention.recover(run)
    candidates = [step] if step is not None else _steps(run, world)
    damaged: dict[int, str] = {}
    for candidate in candidates:
        folder = run / retention.CHECKPOINTS / manifest.step_folder(candidate)
        try:
            return ChosenCheckpoint(_verified(folder, world), damaged)
        except CheckpointError as error:
            if step is not None or isinstance(error, CheckpointUnreadable):
                raise
            damaged[candidate] = str(error)
    return ChosenCheckpoint(None, damaged)


def _steps(run: Path, world: World) -> list[int]:
    """The steps of the checkpoints that rank 0 sees, the newest first. Collective."""
    present: list[int] = []
    folder = run / retention.CHECKPOINTS
    if world.rank == 0 and folder.is_dir():
        try:
            steps = [manifest.step_of(entry.name) for entry in folder.iterdir()]
        except OSError as error:  # the other ranks notice that this one ends
            raise read_error(folder, error) from error
        present = sorted((step for step in steps if step is not None), reverse=True)
    text = world.broadcast(",".join(map(str, present)).encode()).decode()
    return [int(step) for step in text.split(",") if step]


def _verified(folder: Path, world: World) -> Checkpoint:
    """The checkpoint in `folder`. Raises CheckpointError on every rank."""
    error: Exception | None = None
    try:
        written = manifest.read(folder)
        checksums.check(folder, written.files, world.rank, world.size)
        checkpoint = open_checkpoint(folder, verify=False)
    except (OSError, CheckpointError) as raised:
        error = raised
    kind = _UNREADABLE if isinstance(error, CheckpointUnreadable) else _DAMAGED
    flags = world.agree(kind if error is not None else 0)
    if flags & _UNREADABLE:
        raise CheckpointUnreadable(str(error or f"{folder} cannot be read by another rank"))
    if flags:
        raise CheckpointError(str(error or f"{folder} is damaged, as another rank found"))
    return checkpoint
