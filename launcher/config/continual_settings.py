"""The settings of learning on as new data arrives."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from training.duration import Duration
from training.settings import Samples, Steps

_ON: dict[str, Any] = {"only_if": {"continual.enabled": [True]}}
Seconds = Annotated[float, Field(json_schema_extra=_ON | {"unit": "seconds"})]


class Continual(BaseModel, extra="forbid", frozen=True):
    """Going on after the data is learnt: new files of data.path are taken in as they come."""

    enabled: Annotated[
        bool,
        Field(description="Watch the folder of data.path when it is learnt, and learn on."),
    ] = False
    replay: Annotated[
        float,
        Field(
            ge=0,
            lt=1,
            description="Share of an experience's samples that are drawn from older data.",
            json_schema_extra=_ON,
        ),
    ] = 0.5
    epochs: Annotated[
        float,
        Field(
            gt=0, description="Passes over the new data of an experience.", json_schema_extra=_ON
        ),
    ] = 1.0
    max_steps: Annotated[
        Steps | None,
        Field(ge=1, description="Steps of one experience at most.", json_schema_extra=_ON),
    ] = None
    lr_scale: Annotated[
        float,
        Field(
            gt=0,
            le=1,
            description="The peak of an experience's learning rate, as a share of optim.lr.",
            json_schema_extra=_ON,
        ),
    ] = 0.3
    warmup: Annotated[
        Duration,
        Field(
            description="How long an experience's learning rate rises to its peak.",
            json_schema_extra=_ON,
        ),
    ] = "5%"
    min_files: Annotated[
        int,
        Field(ge=1, description="New files that make an experience.", json_schema_extra=_ON),
    ] = 1
    min_samples: Annotated[
        Samples,
        Field(ge=1, description="New training samples that make one.", json_schema_extra=_ON),
    ] = 1
    hold: Annotated[
        Literal["link", "copy"],
        Field(
            description="What the run folder keeps of files it took: links, or copies that no "
            "change of the files can reach.",
            json_schema_extra=_ON,
        ),
    ] = "link"
    on_change: Annotated[
        Literal["leave", "learn"],
        Field(
            description="What a file is that changed after it was learnt: nothing new, or new "
            "data; learn needs continual.hold copy, for what was learnt is replayed.",
            json_schema_extra=_ON,
        ),
    ] = "leave"
    refetch_every_s: Annotated[
        Seconds | None,
        Field(
            gt=0,
            description="Seconds between two times of asking the servers of download.files for "
            "newer ones; null: never.",
        ),
    ] = None
    check_every_s: Annotated[
        Seconds, Field(gt=0, description="Seconds between two looks for new files.")
    ] = 10.0
    settle_s: Annotated[
        Seconds,
        Field(ge=0, description="A file whose size and time stay so long is complete."),
    ] = 5.0
    quiet_s: Annotated[
        Seconds | None,
        Field(gt=0, description="End when no new file came for so long; null: never."),
    ] = None
    max_hours: Annotated[
        float | None,
        Field(
            gt=0,
            description="End so many hours after this start, saving first; null: never.",
            json_schema_extra=_ON,
        ),
    ] = None
