"""The settings of showing a run on dashboards."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from training.trackers.catalog import PATTERN

Track = Annotated[str, Field(pattern=PATTERN)]
"""A tracker by its name, and what it takes behind a colon."""
_TRACKED: dict[str, Any] = {"unless": {"track": [[]]}}


class Tracking(BaseModel, extra="forbid", frozen=True):
    """What trackers are given beside metrics; which trackers there are says `track`."""

    checkpoints: Annotated[
        Literal["none", "best", "all"],
        Field(
            description="Checkpoints that W&B keeps as artifacts, with their files.",
            json_schema_extra=_TRACKED,
        ),
    ] = "none"
    samples: Annotated[
        bool,
        Field(
            description="Show what the model makes of a few samples at each evaluation.",
            json_schema_extra=_TRACKED,
        ),
    ] = True
    wait_s: Annotated[
        float,
        Field(
            ge=0,
            description="How long a completed run waits for what is still to be sent.",
            json_schema_extra=_TRACKED,
        ),
    ] = 30.0
