"""The contract of a tracker: the run it shows, how it is built, and how its failures are caught."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from training.callbacks.base import Callback, RunInfo
from training.settings import TRACKERS, Tracking


@dataclass(frozen=True)
class TrackedRun:
    """A run as trackers see it before its first step."""

    folder: Path
    settings: Mapping[str, Any]
    """Each value by its dotted key."""
    origins: Mapping[str, str]
    """The origin of each setting: "config, mine.yaml:3"."""
    about: RunInfo
    tracking: Tracking
    emit: Callable[[str, Mapping[str, object]], None]
    """Send an event (kind, facts) to all callbacks while the run trains."""
    report: Callable[[Literal["notice", "warning"], str], None]
    """Print a line after the run has ended."""
    sync_command: str
    """The command that sends a tracker what it lacks of the run."""
    went_back: bool = False
    """The run was resumed in its own folder from an earlier step, or with other settings."""


def build_trackers(names: Sequence[str], run: TrackedRun) -> list[Callback]:
    """The callbacks of trackers, for rank 0; a name can have a detail: "wandb:my-project"."""
    trackers: list[Callback] = []
    for text in names:
        name, _, detail = text.partition(":")
        module: Any = importlib.import_module(TRACKERS[name].module)
        trackers.append(module.tracker(run, detail or None))
    return trackers


class TrackerError(Exception):
    """A message for the user, such as what to set up."""


def failure_of(action: Callable[[], object]) -> str | None:
    """Run `action`; None if it succeeded, else its exception in one line.

    The border of the trackers: an error of W&B, TensorBoard or a task's predictions becomes a
    warning, and the run continues.
    """
    try:
        action()
    except Exception as error:
        return describe(error)
    return None


def describe(error: BaseException) -> str:
    """The type of `error` and the first line of its message; of a TrackerError the message."""
    if isinstance(error, TrackerError):
        return str(error)
    first = str(error).strip().splitlines()
    return f"{type(error).__name__}: {first[0]}" if first else type(error).__name__
