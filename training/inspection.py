"""What a person should know of the first step: untrained parameters, and the first batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from engines.base import Engine
    from models.base import Batch

_MOST_NAMES = 8
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


def shapes(batch: Batch) -> dict[str, object]:
    """Axes and dtype of each tensor of a batch, by its name."""
    return {name: _shape(value) for name, value in batch.items()}


def _shape(value: Any) -> object:
    if isinstance(value, torch.Tensor):
        return f"{list(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, Mapping):
        return {name: _shape(inner) for name, inner in value.items()}
    return type(value).__name__
