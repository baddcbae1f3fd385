"""The weights of a folder that a run started from: checkpoints have their checksum."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from gearshift.models.base import DataError, HasBaseWeights
from gearshift.training.callbacks.base import Facts

if TYPE_CHECKING:
    from torch.nn import Module

    from gearshift.engines.base import Engine, State, World
    from gearshift.models.base import Task
    from gearshift.training.checkpoint.reader import Checkpoint

_CHUNK_BYTES = 1 << 24
FACT = "base"
"""The fact of a checkpoint with the folder and its checksum."""


@dataclass(frozen=True)
class BaseWeights:
    """The pretrained weights of a model, which its task reads from `folder`."""

    folder: Path
    frozen: frozenset[str]
    """The parameters that checkpoints lack; empty: all are trained, and checkpoints have them."""
    sha256: str
    """Of the names and contents of the folder's safetensors files."""

    @property
    def facts(self) -> Facts:
        """What a checkpoint keeps of the folder."""
        return {FACT: {"folder": str(self.folder.absolute()), "sha256": self.sha256}}

    def check(self, checkpoint: Checkpoint) -> None:
        """Raise DataError if the run of the checkpoint started from other weights."""
        known = checkpoint.facts.get(FACT)
        if known is not None and known["sha256"] != self.sha256:
            raise DataError(
                f"the weights in '{self.folder}' are not those that the checkpoint of step "
                f"{checkpoint.manifest.step} was trained on: their sha256 is {self.sha256}",
                where=f"model.pretrained, and {checkpoint.folder}",
                allowed=f"the weights with sha256 {known['sha256']}, once in {known['folder']}",
                hint="--set model.pretrained=FOLDER  with those weights",
            )

    def left_out(self, engine: Engine) -> Engine:
        """`engine` with a state that lacks the frozen weights."""
        if not self.frozen:
            return engine
        return cast("Engine", _WithoutBase(engine, self.frozen))


def find(task: Task, model: Module, world: World) -> BaseWeights | None:
    """The base weights of `model`; None: it has none. Collective; rank 0 reads the disk.

    Reads each byte once, about a gigabyte per second.
    """
    if not isinstance(task, HasBaseWeights):
        return None
    folder = task.base_folder()
    if folder is None:
        return None
    sha256 = None
    if world.rank == 0:
        sha256 = digest(folder).encode()
    sha256 = world.broadcast(sha256)
    frozen: set[str] = set()
    if has_adapters(task):
        frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    return BaseWeights(folder, frozenset(frozen), sha256.decode())


def has_adapters(task: object) -> bool:
    """Whether a checkpoint of the task has adapters only."""
    return isinstance(task, HasBaseWeights) and task.has_adapters


def digest(folder: Path) -> str:
    """SHA-256 of the names and contents of the folder's safetensors files. Disk access."""
    sha256 = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        sha256.update(path.name.encode())
        with path.open("rb") as file:
            for chunk in iter(lambda: file.read(_CHUNK_BYTES), b""):
                sha256.update(chunk)
    return sha256.hexdigest()


@dataclass
class _WithoutBase:
    """An engine without some frozen parameters in its state; all else is that of the engine."""

    _engine: Engine
    _names: frozenset[str]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def state(self) -> State:
        state = self._engine.state()
        return replace(
            state,
            shapes={name: s for name, s in state.shapes.items() if name not in self._names},
            pieces=[piece for piece in state.pieces if piece.name not in self._names],
        )
