"""Tensors in safetensors files, each read by an operator of its own, which can be deferred."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a file."""

    path: str
    name: str
    shape: tuple[int, ...]

    def read_into(self, tensor: Tensor) -> None:
        """Overwrite `tensor` with the values. Disk access."""
        with torch.no_grad():
            torch.ops.gearshift.read_(tensor, self.path, self.name)


def stored_tensors(place: Path) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file, or of all those in a folder, by name. Disk access."""
    found = {}
    for path in sorted(place.glob("*.safetensors")) if place.is_dir() else [place]:
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                shape = tuple(file.get_slice(name).get_shape())
                found[name] = StoredTensor(str(path), name, shape)
    return found


def _read(tensor: Tensor, path: str, name: str) -> None:
    with safe_open(path, "pt") as file:
        tensor.copy_(file.get_tensor(name))


_library = torch.library.Library("gearshift", "DEF")
_library.define("read_(Tensor(a!) tensor, str path, str name) -> ()")
_library.impl("read_", _read, "CPU")
_library.impl("read_", lambda tensor, path, name: None, "Meta")
"""Fake tensors have no values to overwrite."""
