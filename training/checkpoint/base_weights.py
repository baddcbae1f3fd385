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
"""The key of these weights among the facts of a checkpoint."""


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
        _compare(self.folder, self.sha256, point.fact(FACT), point.step)

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
    digest = world.broadcast(_digest(folder).encode() if world.rank == 0 else None)
    frozen = (name for name, p in model.named_parameters() if not p.requires_grad)
    return BaseWeights(folder, frozenset(frozen), digest.decode())


def check_folder(folder: Path, fact: Mapping[str, str] | None, step: int) -> None:
    """Raise DataError unless `folder` has the base weights of a checkpoint of `step`.

    `fact` is what the checkpoint has instead of them; None: unknown. Reads the disk.
    """
    _compare(folder, _digest(folder), fact, step)


def _compare(folder: Path, sha256: str, fact: Mapping[str, str] | None, step: int) -> None:
    if fact is not None and fact["sha256"] != sha256:
        raise DataError(
            f"the weights in '{folder}' are not those that the checkpoint of step {step} was "
            f"trained on: their sha256 is {sha256}",
            where="model.pretrained",
            allowed=f"the weights with sha256 {fact['sha256']}, once in {fact['folder']}",
            fix="--set model.pretrained=FOLDER  with those weights",
        )


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()


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
