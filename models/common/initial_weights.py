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
from torch.nn import Module

from models.base import DataError
from models.common.hugging_face import stored_tensors

ALLOWED = "a run folder, one of its checkpoints, an export or a safetensors file"
_MODEL, _MANIFEST, _STATE = "model.safetensors", "manifest.json", "state.json"
_PARTS = ("best", "last")
_KINDS = ("buffer", "ema", "weight")
"""Tensors of a model in the files of a checkpoint; the average counts before the weight."""
_FAULTS = (*(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError), SafetensorError)


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
        source = find(path)
        if source is None:
            raise DataError(f"{setting} '{path}' has no weights", where=setting, allowed=ALLOWED)
        self.path, self._setting = source, setting
        self.shapes: dict[str, tuple[int, ...]] = {}
        """Shape of each parameter and buffer."""
        self._parts: dict[str, list[_Part]] = {}
        with self._read_errors():
            self._stored = stored_tensors(source) if source.is_file() else {}
            self.shapes = {name: tensor.shape for name, tensor in self._stored.items()}
            if source.is_dir():
                self._list(source)

    def read_into(self, name: str, tensor: Tensor) -> None:
        """Overwrite `tensor`, of the stored shape. Reads the disk. Raises DataError."""
        with self._read_errors(), torch.no_grad():
            if name in self._stored:
                self._stored[name].read_into(tensor)
                return
            parts = []
            for part in self._parts[name]:
                # Opened for each tensor: mapped data stays in memory until the file is closed.
                with safe_open(part.file, "pt") as file:
                    parts.append(file.get_tensor(part.key).clone())
            tensor.copy_(torch.cat(parts).reshape(self.shapes[name]))

    def _list(self, folder: Path) -> None:
        manifest = json.loads((folder / _MANIFEST).read_bytes())
        state = json.loads((folder / _STATE).read_bytes())
        names = [str(file["name"]) for file in manifest["files"]]
        parts: dict[tuple[str, str], list[_Part]] = {}
        for shard in (folder / name for name in names if name.startswith("rank-")):
            with safe_open(shard, "pt") as file:
                for key in list(file.keys()):
                    kind, rest = key.split("|", 1)
                    name, start = rest.rsplit("|", 1)
                    (length,) = file.get_slice(key).get_shape()
                    if kind in _KINDS:
                        pieces = parts.setdefault((kind, name), [])
                        pieces.append(_Part(int(start), shard, key, length))
        shapes = {name: tuple(shape) for name, shape in state["shapes"].items()}
        buffers = {name: tuple(shape) for name, shape in state["buffers"].items()}
        self.shapes = shapes | buffers
        for name, shape in self.shapes.items():
            pieces = next((parts[kind, name] for kind in _KINDS if (kind, name) in parts), [])
            self._parts[name] = sorted(pieces)
            if sum(part.length for part in pieces) != prod(shape):
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


def load(setting: str, model: Module, path: Path, allowed: str, parts: tuple[str, ...] = ("",)) -> str:
    """Load the tensors of `model` from what `path` stands for; returns a summary.

    `setting` is the key that names `path`, and `allowed` its values, as text. Only names that
    begin with one of `parts` count, of the model and of what is stored. One tensor at a time is in
    memory. Reads the disk. Raises DataError unless these names and shapes match exactly.
    """
    stored = InitialWeights(path, setting)
    tensors = {name: tensor for name, tensor in _own(model).items() if name.startswith(parts)}
    shapes = {name: shape for name, shape in stored.shapes.items() if name.startswith(parts)}
    expected = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    wrong = [n for n in sorted({*expected, *shapes}) if expected.get(n) != shapes.get(n)]
    # Missing and extra ones first, which say more than a shape.
    wrong.sort(key=lambda name: name in expected and name in shapes)
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        what = "encoder" if setting.endswith(".encoder") else "model"
        matching = len(set(tensors) - set(wrong))
        raise DataError(
            f"{setting} '{stored.path}' is another {what}: {matching} of {len(tensors)} tensors match",
            where=f"{wrong[0]}{more}",
            allowed=f"{allowed}, of the same model.size",
        )
    for name, tensor in tensors.items():
        stored.read_into(name, tensor)
    return f"loaded {len(tensors)}/{len(tensors)} tensors from {stored.path}"


def _own(module: Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by name; tied ones once, under their first name."""
    first = dict(module.named_parameters())
    every = dict(module.named_parameters(remove_duplicate=False))
    return {n: t for n, t in module.state_dict().items() if n in first or n not in every}
