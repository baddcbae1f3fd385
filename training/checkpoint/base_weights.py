"""Frozen weights from a folder: checkpoints name them by their checksum instead of having them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from models.base import DataError, HasBaseWeights

if TYPE_CHECKING:
    from torch.nn import Module

    from engines.base import Engine, State, World
    from models.base import Task
    from training.checkpoint.resume_point import ResumePoint

_CHUNK_BYTES = 1 << 24
FACT = "base"
"""The fact of a checkpoint with the folder and its checksum."""


@dataclass(frozen=True)
class BaseWeights:
    """The frozen parameters of a model, which its task reads from `folder`."""

    folder: Path
    names: frozenset[str]
    sha256: str
    """Of the names and contents of the folder's safetensors files."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What a checkpoint keeps in place of the weights."""
        return {FACT: {"folder": str(self.folder.absolute()), "sha256": self.sha256}}

    def check(self, point: ResumePoint) -> None:
        """Raise DataError if the checkpoint was trained on other weights."""
        known = point.fact(FACT)
        if known is not None and known["sha256"] != self.sha256:
            raise DataError(
                f"the weights in '{self.folder}' are not those that the checkpoint of step "
                f"{point.step} was trained on: their sha256 is {self.sha256}",
                where=f"model.pretrained, and {point.checkpoint.folder}",
                allowed=f"the weights with sha256 {known['sha256']}, once in {known['folder']}",
                fix="--set model.pretrained=FOLDER  with those weights",
            )

    def left_out(self, engine: Engine) -> Engine:
        """`engine` with a state that lacks these weights."""
        return cast("Engine", _WithoutBase(engine, self.names))


def find(task: Task, model: Module, world: World) -> BaseWeights | None:
    """The base weights of `model`; None: checkpoints have all. Collective; rank 0 reads the disk.

    Reads each byte once, about a gigabyte per second.
    """
    folder = task.base_folder() if isinstance(task, HasBaseWeights) else None
    if folder is None:
        return None
    sha256 = world.broadcast(digest(folder).encode() if world.rank == 0 else None)
    frozen = (name for name, p in model.named_parameters() if not p.requires_grad)
    return BaseWeights(folder, frozenset(frozen), sha256.decode())


def digest(folder: Path) -> str:
    """SHA-256 of the names and contents of the folder's safetensors files. Disk access."""
    found = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        found.update(path.name.encode())
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                found.update(chunk)
    return found.hexdigest()


class _WithoutBase:
    """An engine without some frozen parameters in its state; all else is that of the engine."""

    def __init__(self, engine: Engine, names: frozenset[str]):
        self._engine = engine
        self._names = names

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def state(self) -> State:
        """As `Engine.state`, of the other parameters."""
        state = self._engine.state()
        return replace(
            state,
            shapes={name: s for name, s in state.shapes.items() if name not in self._names},
            pieces=[piece for piece in state.pieces if piece.name not in self._names],
        )
