"""Reads a checkpoint by name, whatever engine and however many ranks wrote it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from engines.base import Shape, kind_shape
from training.checkpoint import checksums, manifest, tensor_file
from training.checkpoint.manifest import (
    CheckpointError,
    Manifest,
    StateFile,
    parse_steps,
    read_state,
)
from training.checkpoint.tensor_file import BUFFER, parse_key

if TYPE_CHECKING:
    from torch import Tensor

WEIGHT = "weight"


@dataclass(frozen=True)
class _Stored:
    """Where an interval [start, stop) of a flattened tensor lies."""

    start: int
    stop: int
    file: str
    offset: int
    """Of its first byte in the file."""
    dtype: torch.dtype


class Checkpoint:
    """The tensors of a checkpoint by kind and name, and what is kept beside them.

    Only the heads of files are read when it is made. Tensors are read when asked for, onto the
    CPU, and of them only what is asked for; no file stays open, so several threads may read. A
    kind is "weight", "ema" or the name of an optimizer slot.
    """

    def __init__(self, folder: Path, found: Manifest) -> None:
        self.folder = folder
        self.manifest = found
        with _named(folder / manifest.STATE):
            beside: StateFile = read_state(folder / manifest.STATE)
        self.shapes: Mapping[str, Shape] = beside.shapes
        self.buffer_shapes: Mapping[str, Shape] = beside.buffers
        self.groups: list[dict[str, Any]] = beside.groups
        self.loss_scale: Mapping[str, float] = beside.loss_scale
        self.facts: Mapping[str, Any] = beside.facts
        self.steps: dict[str, float] = {}
        """Optimizer steps taken, by parameter."""
        self._stored: dict[tuple[str, str], list[_Stored]] = {}
        for file in found.files:
            if manifest.is_rank_file(file.name):
                with _named(folder / file.name):
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
        """A parameter or slot, fp32, or a buffer in its own shape. Raises KeyError."""
        shape = self.shape(kind, name)
        return self.interval(kind, name, 0, prod(shape)).reshape(shape)

    def shape(self, kind: str, name: str) -> Shape:
        """The shape of a parameter, a slot or a buffer. Raises KeyError where there is none."""
        if kind == BUFFER:
            return self.buffer_shapes[name]
        return kind_shape(kind, self.shapes[name])

    def buffer(self, name: str) -> Tensor:
        """A buffer in its own shape and dtype. Raises KeyError where there is none."""
        return self.tensor(BUFFER, name)

    def dtype(self, kind: str, name: str) -> torch.dtype:
        """What a tensor is stored as: fp32 but for buffers. Raises KeyError."""
        return self._stored[kind, name][0].dtype

    def interval(self, kind: str, name: str, start: int, stop: int) -> Tensor:
        """Elements [start, stop) of a flattened tensor. Raises KeyError, ValueError."""
        target = torch.empty(max(0, stop - start), dtype=self.dtype(kind, name))
        self.read(kind, name, start, target)
        return target

    def read(self, kind: str, name: str, start: int, target: Tensor) -> None:
        """Fill `target`, flat, contiguous, on the CPU, with the elements from `start` on.

        It is of the dtype that is stored. Nothing is held in between. Raises KeyError where there
        is no such tensor, ValueError where it has fewer elements, CheckpointError where its file
        cannot be read.
        """
        stored = self._stored[kind, name]
        stop = start + target.numel()
        if not 0 <= start <= stop <= stored[-1].stop:
            raise ValueError(f"{kind} of {name} has no elements {start} to {stop}")
        assert target.dtype == stored[0].dtype
        for one in stored:
            first, last = max(start, one.start), min(stop, one.stop)
            if first < last:
                self._fill(target[first - start : last - start], one, first - one.start)

    def _fill(self, target: Tensor, stored: _Stored, skipped: int) -> None:
        path = self.folder / stored.file
        rest = target.detach().view(torch.uint8).numpy().data
        with _named(path), path.open("rb", buffering=0) as stream:
            stream.seek(stored.offset + skipped * stored.dtype.itemsize)
            while rest:
                count = stream.readinto(rest)
                if not count:
                    raise ValueError("it ends too early")
                rest = rest[count:]

    def _list(self, file: str) -> None:
        """Note which intervals `file` holds."""
        found = tensor_file.read_head(self.folder / file)
        for key, (entry, offset) in found.entries.items():
            kind, name, start = parse_key(key)
            (length,) = entry.shape
            if kind != BUFFER and entry.dtype != torch.float32:
                raise ValueError(f"{key} is {entry.dtype}, where fp32 belongs")
            stored = _Stored(start, start + length, file, offset, entry.dtype)
            self._stored.setdefault((kind, name), []).append(stored)
        for name, count in parse_steps(found.metadata["steps"]).items():
            if name not in self.shapes:
                raise ValueError(f"steps of {name}, which is no parameter")
            if self.steps.setdefault(name, count) != count:
                raise ValueError(f"ranks differ in the steps of {name}")

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
            stored.sort(key=lambda one: (one.start, one.stop))
            ends, size = [0, *(one.stop for one in stored)], prod(self.shape(kind, name))
            is_whole = [one.start for one in stored] == ends[:-1] and ends[-1] == size
            if not stored or not is_whole or len({one.dtype for one in stored}) > 1:
                raise CheckpointError(f"{self.folder}: {kind} of {name} is not whole")


def open_checkpoint(folder: Path, verify: bool = True) -> Checkpoint:
    """The checkpoint in `folder`, which may be a link such as `last`. Touches disk.

    Raises CheckpointError where it is not whole. With `verify`, every byte is compared with its
    checksum first; who has done that already (`blocks.check`, part by part) may leave it out.
    """
    found = manifest.read(folder)
    if verify:
        checksums.check(folder, found.files)
    return Checkpoint(folder, found)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Faults in reading `path`, whose content anyone may have made, as CheckpointError."""
    try:
        yield
    except OSError as fault:
        raise CheckpointError(f"{path} cannot be read: {fault.strerror or fault}") from fault
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as fault:
        raise CheckpointError(f"{path} is not part of a checkpoint: {fault!r:.300}") from fault
