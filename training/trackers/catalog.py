"""The trackers: how the user types each, and the module that sends to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field


@dataclass(frozen=True)
class TrackerEntry:
    """A tracker. Its module has a class Session: training.trackers.follow.Tracker."""

    label: str
    """Its name in messages."""
    module: str
    form: str
    """How the user types it."""
    detail: str = ""
    """A regular expression for the part after its name."""
    extra: str | None = None
    """The package that it needs, which the extra of this name installs; None: always there."""


TRACKERS: Mapping[str, TrackerEntry] = {
    "wandb": TrackerEntry(
        label="W&B",
        module="gearshift.training.trackers.wandb",
        form="wandb[:[ENTITY/]PROJECT]",
        # W&B takes no such letters in the name of a project, and no longer ones.
        detail=r"(:([A-Za-z0-9._-]+/)?[^\s/\\#?%:,]{1,128})?",
    ),
    "tensorboard": TrackerEntry(
        label="TensorBoard",
        module="gearshift.training.trackers.tensorboard",
        form="tensorboard",
        extra="tensorboard",
    ),
    "mlflow": TrackerEntry(
        label="MLflow",
        module="gearshift.training.trackers.mlflow",
        form="mlflow[:EXPERIMENT]",
        detail=r"(:[^\s:,]+)?",
        extra="mlflow",
    ),
}
"""By name, which is that of its folder in a run folder, too."""
TRACKER_FORMS = ", ".join(tracker.form for tracker in TRACKERS.values())
TRACK_PATTERN = f"^({'|'.join(name + tracker.detail for name, tracker in TRACKERS.items())})$"
Track = Annotated[str, Field(pattern=TRACK_PATTERN)]
"""A tracker by name, with its part after the colon."""
