"""The hooks of the trackers that a person asked for."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from training.callbacks.base import Callback
from training.trackers.catalog import TRACKERS
from training.trackers.tracked import Tracked


def build(typed: Sequence[str], tracked: Tracked) -> list[Callback]:
    """A hook for each of `typed`, such as "wandb:my-project"; for rank 0."""
    found: list[Callback] = []
    for text in typed:
        name, _, detail = text.partition(":")
        module: Any = importlib.import_module(TRACKERS[name].module)
        found.append(module.tracker(tracked, detail or None))
    return found
