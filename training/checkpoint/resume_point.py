"""The resume point of a run: the newest whole checkpoint, or one by its step, and what is reset."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from gearshift.models.base import DataError
from gearshift.training.agreement import attempt
from gearshift.training.callbacks.base import Emit, Facts
from gearshift.training.checkpoint import manifest, retention
from gearshift.training.checkpoint.manifest import (
    CheckpointDamaged,
    CheckpointError,
    CheckpointUnreadable,
)
from gearshift.training.checkpoint.reader import Checkpoint
from gearshift.training.train_plan import StartSteps

if TYPE_CHECKING:
    from gearshift.engines.base import World


T = TypeVar("T")
_KINDS = (CheckpointError, CheckpointDamaged, CheckpointUnreadable)
_SHOWN = 3  # Changed files that are named
_DATA = {
    "samples": "{1} training samples instead of {0}",
    "fingerprint": "the training samples differ",
    "validation": "the validation samples differ",
}


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
    lost_s: float = 0.0
    """Seconds of the steps after the checkpoint, which are lost but count for a budget of time."""

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

    @property
    def wall_s(self) -> float:
        """Seconds of the run so far, with those that were lost."""
        return float(self.fact("wall_s", 0.0)) + self.lost_s

    @property
    def fits(self) -> Sequence[Sequence[int]]:
        """The fits of the resumed run to its budget of time; a schedule that restarts has none."""
        return [] if "schedule" in self.reset else self.fact("fits", [])

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
        event(
            "resumed",
            {
                "checkpoint": self.checkpoint.folder.name,
                "written_by": {"engine": written.engine, "world_size": written.world_size},
                "changes": list(self.changes),
                "reset": sorted(self.reset),
                "damaged": {f"{step}": text for step, text in self.damaged.items()},
            },
        )
        for text in self.damaged.values():
            event("warning", {"text": f"{text}; resumed from an earlier one"})


def changed_data(before: Facts, now: Facts) -> str | None:
    """How the data of two checkpoints differs, by all that both tell of it; None: it does not."""
    old = before.get("files")
    new = now.get("files")
    if old is not None and new is not None and old != new:
        files = sorted(name for name in {**old, **new} if old.get(name) != new.get(name))
        return f"{len(files)} other files or contents: {', '.join(files[:_SHOWN])}"
    for name, form in _DATA.items():
        if name in before and name in now and before[name] != now[name]:
            return form.format(before[name], now[name])
    return None


def choose(
    run: Path,
    world: World,
    step: int | None,
    *,
    verify: bool = True,
) -> tuple[Checkpoint | None, dict[int, str]]:
    """The newest whole checkpoint of `run`, or the one of `step`. Collective; touches disk.

    And the errors of later, damaged ones by step, as far as this rank knows them. Each rank
    verifies a part of the checksums before any byte is used; without `verify` only those of JSON,
    as `restore` checks the others. Raises CheckpointError on every rank
    if the one of `step` is missing or damaged, and CheckpointUnreadable if a rank may not read one:
    it may be whole. First completes a rename that a kill interrupted.
    """
    steps: list[int] = []
    if world.rank == 0:
        retention.recover(run)
        steps = retention.steps(run)
    steps = json.loads(world.broadcast(json.dumps(steps).encode()))
    if step is not None:
        steps = [step]
    damaged: dict[int, str] = {}
    for candidate in reversed(steps):
        folder = run / retention.CHECKPOINTS / manifest.step_folder(candidate)
        try:
            return _verified(folder, world, verify), damaged
        except CheckpointUnreadable:
            raise
        except CheckpointError as error:
            if step is not None:
                raise
            damaged[candidate] = str(error)
    return None, damaged


def _verified(folder: Path, world: World, verify: bool) -> Checkpoint:
    """The checkpoint in `folder`. Raises CheckpointError on every rank."""

    def verified() -> Checkpoint:
        written = manifest.read(folder)
        files = written.files
        if not verify:
            files = tuple(file for file in files if file.name == manifest.STATE)
        manifest.check_files(folder, files, world.rank, world.size)
        return Checkpoint(folder, written)

    return on_all_ranks(world, verified)


def on_all_ranks(world: World, action: Callable[[], T]) -> T:
    """The result of `action`; if it fails on a rank, all raise a CheckpointError. Collective.

    Of the kinds that ranks raise, the last in _KINDS.
    """
    kind = 0

    def note_kind() -> T:
        nonlocal kind
        try:
            return action()
        except CheckpointError as error:
            kind = max(i for i, each in enumerate(_KINDS) if isinstance(error, each))
            raise

    result, error = attempt(world, note_kind, CheckpointError, OSError)
    if error is None:
        return result
    raise _KINDS[int(world.maximum(torch.tensor([kind])))](error)
