"""Reads a checkpoint by name, whatever engine and however many ranks wrote it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open

from training.checkpoint import blocks, manifest, shard
from training.checkpoint.manifest import CheckpointError, Manifest
from training.checkpoint.shard import BUFFER, parse_key

if TYPE_CHECKING:
    from torch import Tensor

WEIGHT = "weight"


@dataclass(frozen=True)
class _Stored:
    """Where an interval [start, stop) of a flattened tensor lies."""

    start: int
    stop: int
    file: str
    key: str


class Checkpoint:
    """The tensors of a checkpoint by kind and name, and what is kept beside them.

    Tensors are assembled when asked for, on the CPU, from the files of all ranks. A kind is
    "weight" or the name of an optimizer slot.
    """

    def __init__(self, folder: Path, found: Manifest) -> None:
        self.folder = folder
        self.manifest = found
        beside = _read_state(folder / manifest.STATE)
        self.shapes: Mapping[str, tuple[int, ...]] = beside["shapes"]
        self.buffer_shapes: Mapping[str, tuple[int, ...]] = beside["buffers"]
        self.groups: list[dict[str, Any]] = beside["groups"]
        self.loss_scale: Mapping[str, float] = beside["loss_scale"]
        self.facts: Mapping[str, Any] = beside["facts"]
        self.steps: dict[str, float] = {}
        """Optimizer steps taken, by parameter."""
        self._shards: dict[str, Any] = {}
        self._stored: dict[tuple[str, str], list[_Stored]] = {}
        for file in found.files:
            if shard.is_rank_file(file.name):
                self._list(file.name)
        self._check_cover()

    @property
    def kinds(self) -> list[str]:
        """ "weight" and the optimizer slots, sorted."""
        return sorted({kind for kind, _ in self._stored if kind != BUFFER})

    def names(self, kind: str = WEIGHT) -> list[str]:
        """The parameters that have this kind of tensor, sorted."""
        return sorted(name for stored_kind, name in self._stored if stored_kind == kind)

    def tensor(self, kind: str, name: str) -> Tensor:
        """A parameter or slot in its own shape, fp32. Raises KeyError where there is none."""
        return self.interval(kind, name, 0, prod(self.shapes[name])).reshape(self.shapes[name])

    def buffer(self, name: str) -> Tensor:
        """A buffer in its own shape and dtype. Raises KeyError where there is none."""
        shape = self.buffer_shapes[name]
        return self.interval(BUFFER, name, 0, prod(shape)).reshape(shape)

    def interval(self, kind: str, name: str, start: int, stop: int) -> Tensor:
        """Elements [start, stop) of a flattened tensor: all that a rank needs of it."""
        parts = []
        for stored in self._stored[kind, name]:
            first, last = max(start, stored.start), min(stop, stored.stop)
            if first < last or stored.start == stored.stop or start == stop:
                view = self._shards[stored.file].get_slice(stored.key)
                parts.append(view[first - stored.start : max(first, last) - stored.start])
        return parts[0] if len(parts) == 1 else torch.cat([torch.empty(0), *parts])

    def _list(self, file: str) -> None:
        """Note which intervals `file` holds."""
        with _named(self.folder / file):
            opened = safe_open(self.folder / file, framework="pt")
            self._shards[file] = opened
            for key in opened.keys():  # noqa: SIM118 (it is no mapping)
                kind, name, start = parse_key(key)
                (length,) = opened.get_slice(key).get_shape()
                stored = _Stored(start, start + length, file, key)
                self._stored.setdefault((kind, name), []).append(stored)
            steps = json.loads(opened.metadata()["steps"])
        for name, count in steps.items():
            if self.steps.setdefault(name, count) != count:
                raise CheckpointError(f"{self.folder}: ranks differ in the steps of {name}")

    def _check_cover(self) -> None:
        """Every tensor is there from its first element to its last, once."""
        for name in self.shapes:
            self._stored.setdefault((WEIGHT, name), [])
        for name in self.buffer_shapes:
            self._stored.setdefault((BUFFER, name), [])
        for (kind, name), stored in self._stored.items():
            shapes = self.buffer_shapes if kind == BUFFER else self.shapes
            if name not in shapes:
                raise CheckpointError(f"{self.folder} has {kind} of {name}, but not its shape")
            stored.sort(key=lambda one: one.start)
            ends = [0, *(one.stop for one in stored)]
            if [one.start for one in stored] != ends[:-1] or ends[-1] != prod(shapes[name]):
                raise CheckpointError(f"{self.folder}: {kind} of {name} is not whole")


def open_checkpoint(folder: Path, verify: bool = True) -> Checkpoint:
    """The checkpoint in `folder`, which may be a link such as `last`. Touches disk.

    Raises CheckpointError where it is not whole. With `verify`, every byte is compared with its
    checksum first; who has done that already (`blocks.check`, part by part) may leave it out.
    """
    found = manifest.read(folder)
    if verify:
        blocks.check(folder, found.files)
    return Checkpoint(folder, found)


def _read_state(path: Path) -> dict[str, Any]:
    with _named(path):
        fields = json.loads(path.read_bytes())
        for key in ("shapes", "buffers"):
            fields[key] = {name: _shape(shape) for name, shape in fields[key].items()}
        return {key: fields[key] for key in ("shapes", "buffers", "groups", "loss_scale", "facts")}


def _shape(axes: Any) -> tuple[int, ...]:
    if any(type(axis) is not int or axis < 0 for axis in axes):
        raise ValueError(f"{axes!r} is no shape")
    return tuple(axes)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Faults in reading `path`, whose content anyone may have made, as CheckpointError."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as fault:
        raise CheckpointError(f"{path} is not part of a checkpoint: {fault!r}") from fault
    except SafetensorError as fault:
        raise CheckpointError(f"{path} is no safetensors file: {fault}") from fault
