"""What a model is made of, and what of it the first step left untrained; the first batch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch.nn import Module

    from engines.base import Engine
    from models.base import Batch

_MOST_NAMES = 8
_DIGEST_LETTERS = 16
Event = tuple[str, dict[str, object]]
"""Kind and facts, as hooks are told."""


def untrained(engine: Engine) -> Iterator[Event]:
    """Events that name parameters which the first update left as they were. Collective."""
    state = engine.state()
    held = {name for group in state.groups for name in group["names"]}
    frozen = [name for name in state.shapes if name not in held]
    if frozen:
        yield "frozen", {"count": len(frozen), "names": frozen}
    idle = list(engine.without_gradient)
    if idle:
        more = f" and {len(idle) - _MOST_NAMES} more" if len(idle) > _MOST_NAMES else ""
        text = f"no gradient reached {', '.join(idle[:_MOST_NAMES])}{more} in the first step"
        yield "warning", {"text": text, "names": idle}


@dataclass(frozen=True)
class Architecture:
    """What a model is made of, whatever its weights are."""

    parameters: int
    """How many weights there are."""
    digest: str
    """Of the names and shapes of all parameters: equal for models that take the same weights."""


def architecture(model: Module) -> Architecture:
    """The architecture of `model`, before an engine has placed it."""
    found = [(name, list(one.shape), one.numel()) for name, one in model.named_parameters()]
    told = json.dumps([(name, shape) for name, shape, _ in found]).encode()
    digest = hashlib.sha256(told).hexdigest()[:_DIGEST_LETTERS]
    return Architecture(sum(count for _, _, count in found), digest)


def shapes(batch: Batch) -> dict[str, object]:
    """Axes and dtype of each tensor of a batch, by its name."""
    return {name: _shape(value) for name, value in batch.items()}


def _shape(value: Any) -> object:
    if isinstance(value, torch.Tensor):
        return f"{list(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, Mapping):
        return {name: _shape(inner) for name, inner in value.items()}
    return type(value).__name__
