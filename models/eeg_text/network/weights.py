"""Weights of an earlier run, taken over by exact names: all of a model, or of its encoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import Module

from models.base import DataError

_MODEL = "model.safetensors"
LEGAL = {
    "model.encoder": "a run folder of  --set model.stage=encoder , or a safetensors file of its "
    "model",
    "model.start": "a run folder of  --set model.stage=text , or a safetensors file of its model",
}
"""What each setting that names weights may name."""


def find(setting: str, path: Path) -> Path:
    """The safetensors file of a run folder, a checkpoint or an export, or `path` itself.

    Of a run folder the best checkpoint. Touches disk; raises DataError.
    """
    places = [path] if path.is_file() else [path / "best" / _MODEL, path / _MODEL]
    for place in places:
        if place.is_file():
            return place
    raise DataError(
        f"{setting} '{path}' holds no weights",
        where=f"looked for {' and '.join(str(place) for place in places)}",
        allowed=LEGAL[setting],
        fix=f"python -m launcher export {path} --format safetensors",
    )


def load(setting: str, module: Module, place: Path, prefix: str = "") -> str:
    """Give `module` all its tensors from the run or file at `place`; says how many from where.

    There their names begin with `prefix`. One at a time is held beside the model. Touches disk.
    Raises DataError unless each one of them is there, with its shape, and no other of the prefix.
    """
    from safetensors import SafetensorError, safe_open

    own, path = _own(module), find(setting, place)
    try:
        with safe_open(path, "pt") as file:
            stored = [name for name in list(file.keys()) if name.startswith(prefix)]
            _check(setting, path, prefix, own, {n: file.get_slice(n).get_shape() for n in stored})
        for name, tensor in own.items():
            # Opened for each: what was mapped stays in memory until the file is closed.
            with safe_open(path, "pt") as file, torch.no_grad():
                tensor.copy_(file.get_tensor(prefix + name))
    except (SafetensorError, OSError) as error:
        raise DataError(
            f"{setting} '{path}' cannot be read: {error}", where=str(path), allowed=LEGAL[setting]
        ) from None
    return f"loaded {len(own)}/{len(own)} tensors from {path}"


def _own(module: Module) -> dict[str, Tensor]:
    """Live parameters and stored buffers by name; tied ones once, under the first of theirs."""
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
    """Raises DataError where names or shapes differ."""
    shapes = {prefix + name: list(tensor.shape) for name, tensor in own.items()}
    matching = [name for name, shape in shapes.items() if stored.get(name) == shape]
    wrong = [n for n in sorted({*shapes, *stored}) if shapes.get(n) != stored.get(n)]
    if not wrong:
        return
    # What is missing, or is there in excess, tells more than a shape.
    wrong.sort(key=lambda name: name in shapes and name in stored)
    more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
    what = "encoder" if prefix else "model"
    raise DataError(
        f"{setting} '{path}' is of another {what}: {len(matching)} of {len(own)} tensors match",
        where=f"{wrong[0]}{more}",
        allowed=f"{LEGAL[setting]}, of the same model.size",
    )
