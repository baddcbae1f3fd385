"""Which checkpoint of a run folder to go on from: the newest that is whole, or one by its step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from training.checkpoint import blocks, manifest, retention
from training.checkpoint.manifest import CheckpointError
from training.checkpoint.reader import Checkpoint, open_checkpoint

if TYPE_CHECKING:
    from engines.base import World


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
        blocks.check(folder, found.files, world.rank, world.size)
        checkpoint = open_checkpoint(folder, verify=False)
    except (OSError, CheckpointError) as raised:
        fault = raised
    if world.agree(int(fault is not None)):
        raise CheckpointError(str(fault or f"{folder} is damaged, as another rank found"))
    return checkpoint
