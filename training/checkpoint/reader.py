"""Checkpoints as tensors by kind and name, for any engine and any number of ranks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError

from engines.base import Shape, kind_shape
from training.callbacks.base import Facts, Numbers
from training.checkpoint import checksums, manifest, tensor_file
from training.checkpoint.manifest import (
    CheckpointError,
    Manifest,
    StateFile,
    parse_steps,
    read_error,
    read_state,
)
from training.checkpoint.tensor_file import BUFFER, WEIGHT, parse_key

if TYPE_CHECKING:
    from torch import Tensor

_AT_ONCE = 2**22  # Elements that are read together: 16 MiB


@dataclass(frozen=True)
class _Extent:
    """The location of an interval [start, stop) of a flattened tensor."""

    start: int
    stop: int
    file: str
    offset: int
    """Of its first byte in the file."""
    dtype: torch.dtype


class Checkpoint:
    """The tensors of a checkpoint by kind and name, and the content of state.json.

    The constructor reads only the heads of files. Tensors are read on request, onto the CPU; no
    file stays open, so several threads may read. A kind is "weight", "ema" or the name of an
    optimizer slot.
    """

    def __init__(self, folder: Path, written: Manifest) -> None:
        self.folder = folder
        self.manifest = written
        with _read_errors(folder / manifest.STATE):
            state: StateFile = read_state(folder / manifest.STATE)
        self.shapes: Mapping[str, Shape] = state.shapes
        self.buffer_shapes: Mapping[str, Shape] = state.buffers
        self.groups: list[dict[str, Any]] = state.groups
        self.loss_scale: Numbers = state.loss_scale
        self.facts: Facts = state.facts
        self.steps: dict[str, float] = {}
        """Optimizer steps taken, by parameter."""
        self._stored: dict[tuple[str, str], list[_Extent]] = {}
        for file in written.files:
            if manifest.RANK_FILE.match(file.name):
                with _read_errors(folder / file.name):
                    self._list(file.name)
        for name in self.shapes:
            self._stored.setdefault((WEIGHT, name), [])
        for name in self.buffer_shapes:
            self._stored.setdefault((BUFFER, name), [])
        for (kind, name), stored in self._stored.items():
            if name not in (self.buffer_shapes if kind == BUFFER else self.shapes):
                raise CheckpointError(f"{folder} has {kind} of {name} without its shape")
            # Every tensor is complete, without overlaps.
            stored.sort(key=lambda interval: (interval.start, interval.stop))
            ends, size = [0, *(part.stop for part in stored)], prod(self.shape(kind, name))
            is_whole = [part.start for part in stored] == ends[:-1] and ends[-1] == size
            if not stored or not is_whole or len({part.dtype for part in stored}) > 1:
                raise CheckpointError(f"{folder}: {kind} of {name} is incomplete")

    @property
    def kinds(self) -> list[str]:
        """ "weight" and the optimizer slots, sorted."""
        return sorted({kind for kind, _ in self._stored if kind != BUFFER})

    def names(self, kind: str = WEIGHT) -> list[str]:
        """The parameters that have this kind of tensor, sorted."""
        return sorted(name for stored_kind, name in self._stored if stored_kind == kind)

    def tensor(self, kind: str, name: str) -> Tensor:
        """A parameter or slot as fp32, or a buffer, in its shape. Raises KeyError."""
        shape = self.shape(kind, name)
        return self.interval(kind, name, 0, prod(shape)).reshape(shape)

    def shape(self, kind: str, name: str) -> Shape:
        """The shape of a parameter, a slot or a buffer. Raises KeyError."""
        if kind == BUFFER:
            return self.buffer_shapes[name]
        return kind_shape(kind, self.shapes[name])

    def dtype(self, kind: str, name: str) -> torch.dtype:
        """What a tensor is stored as: fp32 but for buffers. Raises KeyError."""
        return self._stored[kind, name][0].dtype

    def interval(self, kind: str, name: str, start: int, stop: int) -> Tensor:
        """Elements [start, stop) of a flattened tensor. Raises KeyError, ValueError."""
        target = torch.empty(max(0, stop - start), dtype=self.dtype(kind, name))
        self.read(kind, name, start, target)
        return target

    def read(self, kind: str, name: str, start: int, target: Tensor) -> None:
        """Fill `target` with the elements from `start` on, without a copy.

        `target` is flat, contiguous, on the CPU and of the stored dtype. Raises KeyError for an
        unknown tensor, ValueError if it has fewer elements, CheckpointError for an unreadable file.
        """
        stored = self._stored[kind, name]
        stop = start + target.numel()
        if not 0 <= start <= stop <= stored[-1].stop:
            raise ValueError(f"{kind} of {name} has no elements {start} to {stop}")
        assert target.dtype == stored[0].dtype
        for interval in stored:
            first, last = max(start, interval.start), min(stop, interval.stop)
            if first < last:
                rest = target[first - start : last - start].detach().view(torch.uint8).numpy().data
                path = self.folder / interval.file
                with _read_errors(path), path.open("rb", buffering=0) as stream:
                    stream.seek(interval.offset + (first - interval.start) * interval.dtype.itemsize)
                    while rest:
                        if not (count := stream.readinto(rest)):
                            raise ValueError("unexpected end of file")
                        rest = rest[count:]

    def check_numbers(self, kind: str) -> None:
        """Raise CheckpointError if a weight, of `kind` where there is one, is NaN. Reads them."""
        averaged = set(self.names(kind))
        for name in self.names():
            used = kind if name in averaged else WEIGHT
            size = prod(self.shape(used, name))
            for start in range(0, size, _AT_ONCE):
                part = self.interval(used, name, start, min(size, start + _AT_ONCE))
                if part.min().isnan():  # a NaN is the least
                    raise CheckpointError(
                        f"{self.folder}: the weight '{name}' is NaN, so this model computes "
                        "nothing but NaN; take another checkpoint"
                    )

    def _list(self, file: str) -> None:
        entries, metadata = tensor_file.read_head(self.folder / file)
        for key, ((dtype, (length,)), offset) in entries.items():
            kind, name, start = parse_key(key)
            if kind != BUFFER and dtype != torch.float32:
                raise ValueError(f"{key} is {dtype}, not fp32")
            stored = _Extent(start, start + length, file, offset, dtype)
            self._stored.setdefault((kind, name), []).append(stored)
        for name, count in parse_steps(metadata["steps"]).items():
            if name not in self.shapes:
                raise ValueError(f"steps of {name}, which is not a parameter")
            if self.steps.setdefault(name, count) != count:
                raise ValueError(f"ranks differ in the steps of {name}")


def open_checkpoint(folder: Path, verify: bool = True) -> Checkpoint:
    """Open the checkpoint in `folder`, which may be a link such as `last`. Touches disk.

    Raises CheckpointError if it is damaged. `verify` compares every byte with its checksum first;
    unnecessary after `checksums.check`.
    """
    written = manifest.read(folder)
    if verify:
        checksums.check(folder, written.files)
    return Checkpoint(folder, written)


@contextmanager
def _read_errors(path: Path) -> Iterator[None]:
    """Turn errors in reading the untrusted file `path` into CheckpointError."""
    try:
        yield
    except OSError as error:
        raise read_error(path, error) from error
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(f"{path} is not part of a checkpoint: {error!r:.300}") from error
