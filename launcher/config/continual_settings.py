"""The settings of continual learning."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field

from training.duration import Duration
from training.settings import Samples, Steps

_ON: dict[str, Any] = {"only_if": {"continual.enabled": [True]}}
Seconds = Annotated[float, Field(json_schema_extra=_ON | {"unit": "seconds"})]


class Continual(BaseModel, extra="forbid", frozen=True):
    """Continual learning: training on new files of data.path as they arrive."""

    enabled: Annotated[
        bool,
        Field(description="Watch the folder data.path after training, and train on new files."),
    ] = False
    replay: Annotated[
        float,
        Field(
            ge=0,
            lt=1,
            description="Share of an experience's samples that is replayed from older data.",
            json_schema_extra=_ON,
        ),
    ] = 0.5
    epochs: Annotated[
        float,
        Field(
            gt=0, description="Epochs over the new data of an experience.", json_schema_extra=_ON
        ),
    ] = 1.0
    max_steps: Annotated[
        Steps | None,
        Field(ge=1, description="Maximum steps of one experience.", json_schema_extra=_ON),
    ] = None
    lr_scale: Annotated[
        float,
        Field(
            gt=0,
            le=1,
            description="Peak learning rate of an experience, as a share of optim.lr.",
            json_schema_extra=_ON,
        ),
    ] = 0.3
    warmup: Annotated[
        Duration,
        Field(
            description="Learning-rate warm-up of an experience.",
            json_schema_extra=_ON,
        ),
    ] = "5%"
    min_files: Annotated[
        int,
        Field(ge=1, description="Minimum new files per experience.", json_schema_extra=_ON),
    ] = 1
    min_samples: Annotated[
        Samples,
        Field(
            ge=1, description="Minimum new training samples per experience.", json_schema_extra=_ON
        ),
    ] = 1
    check_every_s: Annotated[
        Seconds, Field(gt=0, description="Seconds between two checks for new files.")
    ] = 10.0
    settle_s: Annotated[
        Seconds,
        Field(ge=0, description="A file is complete when size and time stay unchanged this long."),
    ] = 5.0
    quiet_s: Annotated[
        Seconds | None,
        Field(gt=0, description="Stop after this long without new files; null: never."),
    ] = None
    max_hours: Annotated[
        float | None,
        Field(
            gt=0,
            description="Stop after N hours and save a checkpoint; null: never.",
            json_schema_extra=_ON,
        ),
    ] = None
