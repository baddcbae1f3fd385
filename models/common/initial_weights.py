"""Initial weights: of a run, one of its checkpoints, an export or a safetensors file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from models.base import DataError

ALLOWED = "a run folder, one of its checkpoints, an export or a safetensors file"
_MODEL, _MANIFEST, _STATE = "model.safetensors", "manifest.json", "state.json"
_PARTS = ("best", "last")
_KINDS = ("buffer", "ema", "weight")
"""Tensors of a model in the files of a checkpoint; the average counts before the weight."""
_FAULTS = (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError)


class _Part(NamedTuple):
    """An interval of a flattened tensor: its first element, its file and its name there."""

    start: int
    file: Path
    key: str
    length: int


def find(path: Path) -> Path | None:
    """The file or checkpoint folder whose weights `path` stands for; None: there is none.

    Of a run folder the best checkpoint, or else the last, or else the newest one. Looks at names.
    """
    if path.is_file():
        return path
    steps = sorted((path / "checkpoints").glob("step-*"), reverse=True)
    for folder in (path, *(path / part for part in _PARTS), *steps):
        if (folder / _MODEL).is_file():
            return folder / _MODEL
        if (folder / _MANIFEST).is_file() and (folder / _STATE).is_file():
            return folder
    return None


class InitialWeights:
    """The weights at a path by name, each read on request.

    A safetensors file is read as it is. Of a checkpoint without model.safetensors the tensors are
    joined from the files of its processes. Parameters that have an average give the average.
    """

    def __init__(self, path: Path, setting: str) -> None:
        """`setting` is the key that names `path`. Reads heads of files. Raises DataError."""
        found = find(path)
        if found is None:
            raise DataError(f"{setting} '{path}' has no weights", where=setting, allowed=ALLOWED)
        self.path, self._setting = found, setting
        self.shapes: dict[str, tuple[int, ...]] = {}
        """Shape of each parameter and buffer."""
        self._parts: dict[str, list[_Part]] = {}
        with self._read_errors():
            if found.is_file():
                with safe_open(found, "pt") as file:
                    for name in list(file.keys()):
                        self.shapes[name] = tuple(file.get_slice(name).get_shape())
            else:
                self._list(found)

    def read_into(self, name: str, tensor: Tensor) -> None:
        """Overwrite `tensor`, of the stored shape. Reads the disk. Raises DataError."""
        with self._read_errors(), torch.no_grad():
            if name not in self._parts:
                with safe_open(self.path, "pt") as file:
                    tensor.copy_(file.get_tensor(name))
                return
            parts = []
            for part in self._parts[name]:
                # Opened for each tensor: mapped data stays in memory until the file is closed.
                with safe_open(part.file, "pt") as file:
                    parts.append(file.get_tensor(part.key).clone())
            tensor.copy_(torch.cat(parts).reshape(self.shapes[name]))

    def _list(self, folder: Path) -> None:
        """Find the parts of each tensor in the files of a checkpoint."""
        manifest = json.loads((folder / _MANIFEST).read_bytes())
        state = json.loads((folder / _STATE).read_bytes())
        names = [str(file["name"]) for file in manifest["files"]]
        parts: dict[tuple[str, str], list[_Part]] = {}
        for place in (folder / name for name in names if name.startswith("rank-")):
            with safe_open(place, "pt") as file:
                for key in list(file.keys()):
                    kind, rest = key.split("|", 1)
                    name, start = rest.rsplit("|", 1)
                    (length,) = file.get_slice(key).get_shape()
                    if kind in _KINDS:
                        own = parts.setdefault((kind, name), [])
                        own.append(_Part(int(start), place, key, length))
        shapes = {name: tuple(shape) for name, shape in state["shapes"].items()}
        buffers = {name: tuple(shape) for name, shape in state["buffers"].items()}
        self.shapes = shapes | buffers
        for name, shape in self.shapes.items():
            own = next((parts[kind, name] for kind in _KINDS if (kind, name) in parts), [])
            self._parts[name] = sorted(own)
            if sum(part.length for part in own) != prod(shape):
                raise ValueError(f"{name} is incomplete")

    @contextmanager
    def _read_errors(self) -> Iterator[None]:
        """Raises what reading raises as DataError."""
        try:
            yield
        except _FAULTS as error:
            raise DataError(
                f"{self._setting} '{self.path}' cannot be read: {error}",
                where=str(self.path),
                allowed=ALLOWED,
            ) from None
