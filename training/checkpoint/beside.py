"""What a checkpoint keeps beside its tensors, read from JSON that anyone may have made."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.base import State
from training.checkpoint.manifest import LARGEST_JSON, CheckpointError
from training.logging.strict_json import encode_bytes


@dataclass(frozen=True)
class Beside:
    """The content of state.json."""

    shapes: Mapping[str, tuple[int, ...]]
    """Of parameters."""
    buffers: Mapping[str, tuple[int, ...]]
    """Shapes of buffers."""
    groups: list[dict[str, Any]]
    loss_scale: Mapping[str, float]
    facts: Mapping[str, Any]
    """The loop's own."""


def encoded(state: State, facts: Mapping[str, Any]) -> bytes:
    """The content of state.json. Raises CheckpointError where it is more than would be read."""
    content = encode_bytes(
        {
            "shapes": state.shapes,
            "buffers": {name: tuple(buffer.shape) for name, buffer in state.buffers.items()},
            "groups": state.groups,
            "loss_scale": state.loss_scale,
            "facts": facts,
        }
    )
    if len(content) > LARGEST_JSON:
        raise CheckpointError(f"what is no tensor takes {len(content)} bytes of JSON")
    return content


def read_beside(path: Path) -> Beside:
    """The content of state.json at `path`.

    Raises OSError, and ValueError, KeyError, TypeError, AttributeError or RecursionError where it
    is something else.
    """
    fields = json.loads(path.read_bytes())
    groups = fields["groups"]
    if type(groups) is not list or not all(_is_group(group) for group in groups):
        raise ValueError("its groups are not what an optimizer has")
    return Beside(
        shapes={name: _shape(shape) for name, shape in fields["shapes"].items()},
        buffers={name: _shape(shape) for name, shape in fields["buffers"].items()},
        groups=groups,
        loss_scale={name: _number(value) for name, value in fields["loss_scale"].items()},
        facts=dict(fields["facts"].items()),
    )


def read_steps(text: str) -> dict[str, float]:
    """Optimizer steps by parameter, from the metadata of a file. Raises as `read_beside`."""
    steps = {name: _number(count) for name, count in json.loads(text).items()}
    if any(count < 0 for count in steps.values()):
        raise ValueError("a number of steps below zero")
    return steps


def _is_group(group: Any) -> bool:
    return isinstance(group, dict) and all(isinstance(name, str) for name in group["names"])


def _shape(axes: Any) -> tuple[int, ...]:
    if type(axes) is not list or any(type(axis) is not int or axis < 0 for axis in axes):
        raise ValueError(f"{axes!r:.100} is no shape")
    return tuple(axes)


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"{value!r:.100} where a finite number belongs")
    return value
