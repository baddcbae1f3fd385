"""The settings of showing a run on dashboards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field


@dataclass(frozen=True)
class Tracker:
    """A way to show a run. Its module has `tracker(tracked, detail)`, which gives a Hook."""

    module: str
    form: str
    """How it is typed, for a person."""
    detail: str | None = None
    """What may stand behind its name and a colon, as a regular expression; None: nothing."""


# W&B takes no such letters in the name of a project, and no longer ones.
_PROJECT = r"([A-Za-z0-9._-]+/)?[^\s/\\#?%:,]{1,128}"
TRACKERS: Mapping[str, Tracker] = {
    "wandb": Tracker("training.trackers.wandb_callback", "wandb[:[ENTITY/]PROJECT]", _PROJECT),
    "tensorboard": Tracker("training.trackers.tensorboard", "tensorboard"),
}
LEGAL = ", ".join(tracker.form for tracker in TRACKERS.values())
PATTERN = "^({})$".format(
    "|".join(
        name if tracker.detail is None else f"{name}(:{tracker.detail})?"
        for name, tracker in TRACKERS.items()
    )
)


Track = Annotated[str, Field(pattern=PATTERN)]
"""A tracker by its name, and what it takes behind a colon."""
_TRACKED: dict[str, Any] = {"unless": {"track": [[]]}}


class Tracking(BaseModel, extra="forbid", frozen=True):
    """What trackers are given beside metrics; which trackers there are says `track`."""

    checkpoints: Annotated[
        Literal["none", "best", "all"],
        Field(
            description="Checkpoints to upload to W&B as artifacts.",
            json_schema_extra=_TRACKED,
        ),
    ] = "none"
    samples: Annotated[
        bool,
        Field(
            description="Log predictions for a few samples at each evaluation.",
            json_schema_extra=_TRACKED,
        ),
    ] = True
    wait_s: Annotated[
        float,
        Field(
            ge=0,
            description="Seconds that a completed run waits for pending uploads.",
            json_schema_extra=_TRACKED,
        ),
    ] = 30.0
