"""The resume point of a run: the newest whole checkpoint, or one by its step, and what is reset."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from models.base import DataError
from training.checkpoint import checksums, manifest, retention
from training.checkpoint.manifest import CheckpointError
from training.checkpoint.reader import Checkpoint, open_checkpoint
from training.train_plan import StartSteps

if TYPE_CHECKING:
    from engines.base import World
    from training.train_plan import StartSteps


@dataclass(frozen=True)
class ResumePoint:
    """The checkpoint, whole and checked, and how the run came to it."""

    checkpoint: Checkpoint
    reset: frozenset[str] = frozenset()
    """Of "optimizer", "schedule", "data"."""
    changes: Sequence[str] = ()
    """What differs from the settings that it was made with, a line each."""
    damaged: Mapping[int, str] = field(default_factory=dict)
    """Later checkpoints that cannot be used, by step, and why."""

    @property
    def step(self) -> int:
        """Updates taken before."""
        return self.checkpoint.manifest.step

    @property
    def starts(self) -> StartSteps:
        """Those of the run that goes on."""
        known = StartSteps(**self.fact("starts", {}))
        return StartSteps(
            data=self.step if "data" in self.reset else known.data,
            schedule=self.step if "schedule" in self.reset else known.schedule,
            samples_before=(
                self.checkpoint.manifest.samples if "data" in self.reset else known.samples_before
            ),
        )

    def fact(self, name: str, missing: Any = None) -> Any:
        """What the loop kept under `name`; `missing` where the checkpoint knows nothing of it."""
        found = self.checkpoint.facts.get(name)
        return missing if found is None else found

    def check_data(self, data: Mapping[str, Any]) -> None:
        """Refuse data that is not what was trained on. Raises DataError."""
        known = self.fact("data", {})
        if "data" in self.reset or not known:
            return
        for name, text in (("samples", "{} samples"), ("fingerprint", "a content of {}")):
            if known[name] != data[name]:
                raise DataError(
                    f"the training data has changed: {text.format(data[name])} where the"
                    f" checkpoint of step {self.step} was made with {text.format(known[name])}",
                    where=str(self.checkpoint.folder),
                    allowed="the data as it was; or --reset data, which begins its order anew",
                    fix="--reset data",
                )

    def tell(self, event: Callable[[str, Mapping[str, object]], None]) -> None:
        """Say what the run goes on from, and which later checkpoints cannot be used."""
        event("resumed", self.described())
        for text in self.damaged.values():
            event("warning", {"text": f"{text}; an earlier one is used"})

    def described(self) -> dict[str, Any]:
        """The facts of the event "resumed"."""
        manifest = self.checkpoint.manifest
        return {
            "checkpoint": self.checkpoint.folder.name,
            "written_by": {"engine": manifest.engine, "world_size": manifest.world_size},
            "changes": list(self.changes),
            "reset": sorted(self.reset),
            "damaged": {f"{step}": text for step, text in self.damaged.items()},
        }


@dataclass(frozen=True)
class Choice:
    """A checkpoint whose every byte was checked; None: there is none."""

    checkpoint: Checkpoint | None
    damaged: Mapping[int, str]
    """Later ones, by step: what is wrong with them, as far as this rank can tell."""


def choose(run: Path, world: World, step: int | None) -> Choice:
    """The newest whole checkpoint of `run`; with `step` that one and no other. Collective.

    Each rank checks its part of the bytes, before anything of them is used. Raises CheckpointError
    on every rank where the one of `step` is missing or damaged. Touches disk: what a kill left
    half renamed is put right.
    """
    if world.rank == 0:
        retention.recover(run)
    wanted = [step] if step is not None else _steps(run, world)
    damaged: dict[int, str] = {}
    for candidate in wanted:
        folder = run / retention.CHECKPOINTS / manifest.step_folder(candidate)
        try:
            return Choice(_checked(folder, world), damaged)
        except CheckpointError as fault:
            if step is not None:
                raise
            damaged[candidate] = str(fault)
    return Choice(None, damaged)


def _steps(run: Path, world: World) -> list[int]:
    """The steps that rank 0 sees checkpoints of, the newest first, on every rank."""
    found: list[int] = []
    folder = run / retention.CHECKPOINTS
    if world.rank == 0 and folder.is_dir():
        steps = (manifest.step_of(entry.name) for entry in folder.iterdir())
        found = sorted((step for step in steps if step is not None), reverse=True)
    count = int(world.maximum(torch.tensor([len(found)], device=world.device)))
    told = torch.zeros(count, dtype=torch.int64)
    told[: len(found)] = torch.tensor(found, dtype=torch.int64)
    return world.sum(told.to(world.device)).tolist() if count else []


def _checked(folder: Path, world: World) -> Checkpoint:
    """The checkpoint in `folder`. Raises CheckpointError on every rank alike."""
    fault: Exception | None = None
    try:
        found = manifest.read(folder)
        checksums.check(folder, found.files, world.rank, world.size)
        checkpoint = open_checkpoint(folder, verify=False)
    except (OSError, CheckpointError) as raised:
        fault = raised
    if world.agree(int(fault is not None)):
        raise CheckpointError(str(fault or f"{folder} is damaged, as another rank found"))
    return checkpoint
