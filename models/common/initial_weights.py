"""Initial weights: of a run, one of its checkpoints, an export or a safetensors file."""

from __future__ import annotations

import json
import zlib
from collections import defaultdict
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from torch.nn import Module, Parameter

from gearshift.models.base import DataError
from gearshift.models.common.data_reports import library_errors, listed
from gearshift.models.common.hugging_face import StoredTensor, compare, stored_tensors, weights_of

ALLOWED = "a run folder, one of its checkpoints, an export or a safetensors file"
_MODEL = "model.safetensors"
_MANIFEST = "manifest.json"
_STATE = "state.json"
_BLOCK_BYTES = 16 * 2**20
"""Of a file that one checksum in the manifest is of."""
_PARTS = ("best", "last")
_KINDS = ("buffer", "ema", "weight")
"""Tensors of a model in the files of a checkpoint; the average counts before the weight."""


_Piece = tuple[int, int, Path, str]
"""Of a tensor: first element, number of elements, file, and name there."""


@dataclass(frozen=True)
class JoinedTensor:
    """A tensor of a checkpoint, whose intervals are in the files of several processes."""

    shape: tuple[int, ...]
    pieces: list[_Piece]

    def read_into(self, tensor: Tensor) -> None:
        """Overwrite `tensor` with the values. Disk access."""
        parts = []
        for _, _, path, key in sorted(self.pieces):
            # Opened for each tensor: mapped data stays in memory until the file is closed.
            with safe_open(path, "pt") as file:
                parts.append(file.get_tensor(key).clone())
        with torch.no_grad():
            tensor.copy_(torch.cat(parts).reshape(self.shape))


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
        self.path = source
        self._what = f"{setting} '{source}'"
        self.tensors: Mapping[str, StoredTensor | JoinedTensor]
        with self._errors():
            self.tensors = stored_tensors(source) if source.is_file() else _joined(source)

    def _errors(self) -> AbstractContextManager[None]:
        return library_errors(
            f"{self._what} cannot be read",
            str(self.path),
            allowed=ALLOWED,
        )

    def check(self) -> None:
        """Compare the files of a checkpoint with its checksums; other files have none.

        Reads each byte. Raises DataError.
        """
        with self._errors():
            _check_files(self.path)

    def read_into(self, name: str, tensor: Tensor) -> None:
        """Overwrite `tensor`, of the stored shape. Reads the disk.

        Raises DataError, also for a weight that is NaN, or infinite though it was trained.
        """
        with self._errors():
            self.tensors[name].read_into(tensor)
        if not isinstance(tensor, Parameter) or not _has_values(tensor):
            return
        # One that is not trained may be infinite, such as a mask.
        is_wrong = tensor.isnan()
        if tensor.requires_grad:
            is_wrong = ~tensor.isfinite()
        if is_wrong.any():
            raise DataError(
                f"{self._what} has a weight that is not finite: '{name}'",
                where=str(self.path),
                allowed=ALLOWED,
            )


def _has_values(tensor: Tensor) -> bool:
    """Whether `tensor` has memory: not of a plan, nor of a rank that gets it from another one."""
    return type(tensor) in (Tensor, Parameter) and not tensor.is_meta


def _check_files(source: Path) -> None:
    """Compare the files that the weights of `source` are in with the manifest of their checkpoint.

    Raises OSError, ValueError, KeyError.
    """
    folder = source.parent if source.is_file() else source
    path = folder / _MANIFEST
    if not path.is_file():
        return
    for file in json.loads(path.read_bytes())["files"]:
        name = file["name"]
        is_used = name == source.name if source.is_file() else name != _MODEL
        if not is_used:
            continue
        with (folder / name).open("rb") as stream:
            for number, checksum in enumerate(file["crc32"]):
                if zlib.crc32(stream.read(_BLOCK_BYTES)) != checksum:
                    raise ValueError(f"{name} is damaged: wrong checksum of block {number}")


def _joined(folder: Path) -> dict[str, JoinedTensor]:
    state = json.loads((folder / _STATE).read_bytes())
    pieces: defaultdict[str, list[_Piece]] = defaultdict(list)
    for shard in folder.glob("rank-*.safetensors"):
        with safe_open(shard, "pt") as stored:
            for key in stored.keys():  # noqa: SIM118
                kind_and_name, start = key.rsplit("|", 1)
                (length,) = stored.get_slice(key).get_shape()
                pieces[kind_and_name].append((int(start), length, shard, key))
    tensors = {}
    for name, shape in (state["shapes"] | state["buffers"]).items():
        keys = [f"{kind}|{name}" for kind in _KINDS]
        parts = next((pieces[key] for key in keys if key in pieces), [])
        if sum(length for _, length, *_ in parts) != prod(shape):
            raise ValueError(f"{name} is incomplete")
        tensors[name] = JoinedTensor(tuple(shape), parts)
    return tensors


def _of_parts(tensors: Mapping[str, Any], parts: tuple[str, ...]) -> dict[str, Any]:
    return {name: tensor for name, tensor in tensors.items() if name.startswith(parts)}


def load(
    setting: str,
    model: Module,
    path: Path,
    allowed: str,
    parts: tuple[str, ...] = ("",),
    is_verified: bool = False,
) -> str:
    """Load the tensors of `model` from what `path` stands for; returns a summary.

    `setting` is the key that names `path`, and `allowed` its values, as text. Only names that
    begin with one of `parts` count, of the model and of what is stored. One tensor at a time is in
    memory. Reads the disk. Raises DataError unless these names and shapes match exactly, and for a
    file that is damaged or a weight that is not finite. `is_verified`: the checksums have been
    compared.
    """
    weights = InitialWeights(path, setting)
    tensors = _of_parts(weights_of(model), parts)
    coverage = compare(tensors, _of_parts(weights.tensors, parts))
    differences = [*coverage.unexpected, *coverage.random]
    if differences:
        what = "encoder" if setting.endswith(".encoder") else "model"
        raise DataError(
            f"{setting} '{weights.path}' is another {what}: "
            f"{len(coverage.matched)} of {len(tensors)} tensors match",
            where=listed(differences, 1),
            allowed=f"{allowed}, of the same model.size",
        )
    # Checksums cost a pass over the files: not where nothing is loaded.
    if not is_verified and any(map(_has_values, tensors.values())):
        weights.check()
    for name, tensor in tensors.items():
        weights.read_into(name, tensor)
    return f"loaded {len(tensors)}/{len(tensors)} tensors from {weights.path}"
