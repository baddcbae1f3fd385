"""Initial weights from another run, by exact names: of a whole model or of its encoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor
from torch.nn import Module

from models.base import DataError
from models.common.initial_weights import InitialWeights

ALLOWED = {
    "model.encoder": "a run folder of  --set model.stage=encoder , or a safetensors file of its "
    "model",
    "model.start": "a run folder of  --set model.stage=text , or a safetensors file of its model",
}
"""Allowed values of each setting that names weights."""


def load(setting: str, module: Module, place: Path, prefix: str = "") -> str:
    """Load all tensors of `module` from the run or file at `place`; returns a summary.

    Stored names begin with `prefix`. One tensor at a time is in memory. Reads the disk. Raises
    DataError unless the stored names and shapes with that prefix match exactly.
    """
    own, stored = _own(module), InitialWeights(place, setting)
    shapes = {n: list(shape) for n, shape in stored.shapes.items() if n.startswith(prefix)}
    _check(setting, stored.path, prefix, own, shapes)
    for name, tensor in own.items():
        stored.read_into(prefix + name, tensor)
    return f"loaded {len(own)}/{len(own)} tensors from {stored.path}"


def _own(module: Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by name; tied ones once, under their first name."""
    first = dict(module.named_parameters())
    every = dict(module.named_parameters(remove_duplicate=False))
    return {n: t for n, t in module.state_dict().items() if n in first or n not in every}


def _check(
    setting: str,
    path: Path,
    prefix: str,
    own: Mapping[str, Tensor],
    stored: Mapping[str, list[int]],
) -> None:
    shapes = {prefix + name: list(tensor.shape) for name, tensor in own.items()}
    matching = [name for name, shape in shapes.items() if stored.get(name) == shape]
    wrong = [n for n in sorted({*shapes, *stored}) if shapes.get(n) != stored.get(n)]
    if not wrong:
        return
    # Missing and extra names first: they say more than a shape.
    wrong.sort(key=lambda name: name in shapes and name in stored)
    more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
    what = "encoder" if prefix else "model"
    raise DataError(
        f"{setting} '{path}' is another {what}: {len(matching)} of {len(own)} tensors match",
        where=f"{wrong[0]}{more}",
        allowed=f"{ALLOWED[setting]}, of the same model.size",
    )
