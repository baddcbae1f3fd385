"""Checkpoints as tensors by kind and name, for any engine and any number of ranks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from safetensors import SafetensorError, safe_open

from gearshift.engines.base import Shape, kind_shape
from gearshift.training.checkpoint import manifest, tensor_file
from gearshift.training.checkpoint.manifest import (
    CheckpointError,
    CheckpointFile,
    Manifest,
    read_errors,
)
from gearshift.training.checkpoint.tensor_file import BUFFER, EMA, WEIGHT, as_bytes, parse_key

if TYPE_CHECKING:
    from torch import Tensor

    from gearshift.engines.base import Piece

_AT_ONCE = 2**20  # Elements that are read together: 4 MiB of fp32


class _Extent(NamedTuple):
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
    file stays open, so several threads may read. A kind is "weight", "ema", "buffer" or the name of
    an optimizer slot. Methods with a kind and a name raise KeyError for a tensor that is missing.
    """

    def __init__(self, folder: Path, written: Manifest) -> None:
        self.folder = folder
        self.manifest = written
        with read_errors(folder / manifest.STATE):
            state = manifest.read_state(folder / manifest.STATE)
        self.shapes: Mapping[str, Shape] = state.shapes
        self.buffer_shapes: Mapping[str, Shape] = state.buffers
        self.groups = state.groups
        self.loss_scale = state.loss_scale
        self.facts = state.facts
        self._trained = {name for group in self.groups for name in group.get("names", ())}
        self.steps: dict[str, float] = {}
        """Optimizer steps taken, by parameter."""

        self._stored: dict[tuple[str, str], list[_Extent]] = {}
        self._stored.update({(WEIGHT, name): [] for name in self.shapes})
        self._stored.update({(BUFFER, name): [] for name in self.buffer_shapes})
        for file in written.files:
            if manifest.RANK_FILE.match(file.name):
                with read_errors(folder / file.name, SafetensorError):
                    self._list(file.name)
        for (kind, name), extents in self._stored.items():
            extents.sort(key=lambda extent: extent[:2])
            if not _are_whole(extents, prod(self.shape(kind, name))):
                raise CheckpointError(f"{folder}: {kind} of {name} is incomplete")

    @property
    def kinds(self) -> list[str]:
        """ "weight" and the optimizer slots, sorted."""
        return sorted({kind for kind, _ in self._stored if kind != BUFFER})

    def names(self, kind: str = WEIGHT) -> list[str]:
        """The parameters, or buffers, that have this kind of tensor, in the order of the model."""
        shapes = self.buffer_shapes if kind == BUFFER else self.shapes
        return [name for name in shapes if (kind, name) in self._stored]

    def shape(self, kind: str, name: str) -> Shape:
        """The shape of a parameter, a slot or a buffer."""
        if kind == BUFFER:
            return self.buffer_shapes[name]
        return kind_shape(kind, self.shapes[name])

    def dtype(self, kind: str, name: str) -> torch.dtype:
        """What a tensor is stored as: fp32, but for buffers and for parameters of 64 bits."""
        return self._stored[kind, name][0].dtype

    def tensor(self, kind: str, name: str) -> Tensor:
        """A parameter, slot or buffer in its shape, and in `dtype`."""
        shape = self.shape(kind, name)
        return self.interval(kind, name, 0, prod(shape)).reshape(shape)

    def parts(self, kind: str, name: str) -> Iterator[Tensor]:
        """A flattened tensor, part after part, in bounded memory."""
        size = prod(self.shape(kind, name))
        for start in range(0, size, _AT_ONCE):
            yield self.interval(kind, name, start, min(size, start + _AT_ONCE))

    def interval(
        self,
        kind: str,
        name: str,
        start: int,
        stop: int,
    ) -> Tensor:
        """Elements [start, stop) of a flattened tensor. Raises CheckpointError."""
        target = torch.empty(stop - start, dtype=self.dtype(kind, name))
        for file, offset, first, last in self.located(kind, name, start, stop):
            self._read(file, offset, target[first - start : last - start])
        return target

    def fill(self, pieces: Iterable[Piece]) -> None:
        """Read `pieces` into their data, but for buffers, and check the blocks of all.

        Raises KeyError for a tensor that is missing, and as BlockReads.run. Touches disk.
        """
        from gearshift.training.checkpoint.block_reads import BlockReads  # of resumed runs

        BlockReads(self, pieces).run()

    def located(
        self,
        kind: str,
        name: str,
        start: int,
        stop: int,
    ) -> Iterator[tuple[str, int, int, int]]:
        """Where elements [start, stop) of a flattened tensor are.

        Gives parts: file, offset of its first byte, first element and element after its last.
        """
        for extent in self._stored[kind, name]:
            first = max(start, extent.start)
            last = min(stop, extent.stop)
            if first < last:
                before = (first - extent.start) * extent.dtype.itemsize
                yield extent.file, extent.offset + before, first, last

    def used_kind(self, kind: str) -> dict[str, str]:
        """By parameter, `kind` such as "ema" where there is one; frozen ones have their weights.

        And by buffer, which stand last.
        """
        kinds = dict.fromkeys(self.shapes, WEIGHT) | dict.fromkeys(self.names(kind), kind)
        return kinds | dict.fromkeys(self.buffer_shapes, BUFFER)

    def check_numbers(self, kind: str) -> None:
        """Raise CheckpointError if a weight, of `kind` where there is one, is not finite.

        Reads the weights, and those of model.safetensors.
        """
        kinds = self.used_kind(kind)
        for name in self.shapes:
            used = kinds[name]
            for file, _, start, stop in self.located(used, name, 0, prod(self.shapes[name])):
                for first in range(start, stop, _AT_ONCE):
                    part = self.interval(used, name, first, min(stop, first + _AT_ONCE))
                    self.check_weight(name, part, self.folder / file)
        path = self.folder / manifest.MODEL
        if path.is_file():
            with read_errors(path, SafetensorError), safe_open(path, "pt") as tensors:
                for name in self.shapes.keys() & tensors.keys():
                    values = tensors.get_tensor(name)
                    if values.numel():
                        self.check_weight(name, values, path)

    def check_weight(
        self,
        name: str,
        values: Tensor,
        path: Path,
    ) -> None:
        """Raise CheckpointError if `values` of the weight `name`, in `path`, are not finite.

        A weight that is not trained may be infinite, such as a mask.
        """
        lowest, highest = values.aminmax()  # both are NaN if one is
        is_usable = math.isfinite(lowest) and math.isfinite(highest)
        if not is_usable and (name in self._trained or lowest.isnan()):
            raise CheckpointError(
                f"{path}: the weight '{name}' is not finite, so this model computes "
                "nothing but NaN; take another checkpoint"
            )

    def _read(self, file: str, offset: int, target: Tensor) -> None:
        """Overwrite `target` with the bytes of `file` from `offset` on."""
        part = as_bytes(target)
        path = self.folder / file
        with read_errors(path), path.open("rb") as stream:
            stream.seek(offset)
            if stream.readinto(part) != len(part):
                raise ValueError("unexpected end of file")

    def _list(self, file: str) -> None:
        entries, metadata = tensor_file.read_head(self.folder / file)
        for key, ((dtype, (length,)), offset) in entries.items():
            kind, name, start = parse_key(key)
            width = dtype.itemsize
            is_aligned = width >= torch.float32.itemsize and offset % width == 0
            if kind != BUFFER and not is_aligned:
                raise ValueError(
                    f"{key} is {dtype} from byte {offset} on, not aligned fp32 or wider"
                )
            self.shape(kind, name)  # it has one
            extent = _Extent(start, start + length, file, offset, dtype)
            self._stored.setdefault((kind, name), []).append(extent)
        steps = manifest.STEPS.validate_json(metadata["steps"], strict=True)
        for name, count in steps.items():
            if self.steps.setdefault(name, count) != count or name not in self.shapes:
                raise ValueError(f"the steps of {name} are unknown, or differ between ranks")


def _are_whole(extents: Sequence[_Extent], size: int) -> bool:
    """Whether `extents`, in order, cover a tensor of `size` elements in one dtype, none twice."""
    end = 0
    for extent in extents:
        if extent.start != end or extent.dtype != extents[0].dtype:
            return False
        end = extent.stop
    return bool(extents) and end == size


def open_checkpoint(folder: Path, verify: bool = True) -> Checkpoint:
    """Open the checkpoint in `folder`, which may be a link such as `last`. Touches disk.

    Raises CheckpointError if it is damaged. `verify` compares every byte with its checksum first;
    unnecessary after `manifest.check_files`, and for `restore`, which checks what it reads.
    """
    written = manifest.read(folder)
    if verify:
        manifest.check_files(folder, written.files)
    return Checkpoint(folder, written)


def write_weights(
    source: Checkpoint,
    path: Path,
    kind: str = WEIGHT,
    names: Mapping[str, str] | None = None,
) -> CheckpointFile:
    """Write parameters and buffers of `source` to the new file `path`, as other programs read them.

    Names and shapes are those of the model, tied weights appear once, dtypes are those of `source`.
    With another `kind`, such as "ema", parameters that have it are written with it, and others
    (frozen ones) with their weights. `names` selects tensors and renames them. Holds a few MiB at a
    time. Touches disk. Raises CheckpointError, StorageError.
    """
    kinds = source.used_kind(kind)
    if names is None:
        names = {name: name for name in kinds}
    keys = [(kinds[name], name) for name in kinds if name in names]
    # The widest first, as readers map the file.
    keys.sort(key=lambda key: -source.dtype(*key).itemsize)
    entries = {names[key[1]]: (source.dtype(*key), source.shape(*key)) for key in keys}
    # Readers of other libraries look for "format".
    metadata = {
        "format": "pt",
        "kind": kind,
        "step": f"{source.manifest.step}",
    }
    head = tensor_file.file_head(entries, metadata)
    contents = (as_bytes(part) for key in keys for part in source.parts(*key))
    return manifest.write_file(path, chain([head], contents))


@dataclass(frozen=True)
class CheckpointTensor:
    """A tensor of a checkpoint, whose parts are in the files of several processes."""

    checkpoint: Checkpoint
    kind: str
    name: str

    @property
    def shape(self) -> Shape:
        return self.checkpoint.shape(self.kind, self.name)

    def read_into(self, tensor: Tensor) -> None:
        """Overwrite `tensor` with the values. Touches disk. Raises CheckpointError."""
        with torch.no_grad():
            tensor.copy_(self.checkpoint.tensor(self.kind, self.name))


class CheckpointWeights:
    """Parameters and buffers; those that have an average give it. See models/base.py: Context."""

    def __init__(self, folder: Path) -> None:
        """Reads heads of files. Raises CheckpointError."""
        self._checkpoint = open_checkpoint(folder, verify=False)
        kinds = self._checkpoint.used_kind(EMA)
        self.tensors: Mapping[str, CheckpointTensor] = {
            name: CheckpointTensor(self._checkpoint, kind, name) for name, kind in kinds.items()
        }

    def check(self, in_one_file: bool) -> None:
        """Compare model.safetensors, or all other files, with their checksums.

        Reads each byte. Raises CheckpointError.
        """
        written = self._checkpoint.manifest.files
        files = [file for file in written if (file.name == manifest.MODEL) == in_one_file]
        manifest.check_files(self._checkpoint.folder, files)
