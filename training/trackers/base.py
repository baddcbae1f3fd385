"""What a tracker is told of the run that it shows."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from training.callbacks.base import Callback, RunInfo
from training.trackers.settings import TRACKERS, Tracking


@dataclass(frozen=True)
class TrackedRun:
    """A run, before it begins."""

    folder: Path
    settings: Mapping[str, Any]
    """Each value by its dotted key."""
    origins: Mapping[str, str]
    """Where each of them comes from: "config, mine.yaml:3"."""
    about: RunInfo
    tracking: Tracking
    tell: Callable[[str, Mapping[str, object]], None]
    """Gives an event to all hooks, while the run goes on."""
    say: Callable[[Literal["notice", "warning"], str], None]
    """Tells the person something after its end."""
    send: str
    """What a person types to have W&B sent what it lacks of the run."""
    went_back: bool = False
    """A person let it go on in its own folder from an earlier step, or with other settings."""


def build_trackers(typed: Sequence[str], tracked: TrackedRun) -> list[Callback]:
    """A hook for each of `typed`, such as "wandb:my-project"; for rank 0."""
    found: list[Callback] = []
    for text in typed:
        name, _, detail = text.partition(":")
        module: Any = importlib.import_module(TRACKERS[name].module)
        found.append(module.tracker(tracked, detail or None))
    return found
