"""The settings of watching the machine: what may be in use, and how often that is looked at."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

Percent = Annotated[float, Field(gt=0, le=100, json_schema_extra={"unit": "percent"})]
Profile = Literal["default", "mac", "cpu-only"]


class Critical(BaseModel, extra="forbid", frozen=True):
    """Use in percent at which one reading is enough to act."""

    ram: Annotated[Percent, Field(description="Host memory, of the total.")] = 95.0
    gpu: Annotated[Percent, Field(description="Device memory, of the total.")] = 95.0
    swap: Annotated[Percent, Field(description="Swap, of the total.")] = 80.0
    disk: Annotated[Percent, Field(description="File system of the run folder: save and stop.")] = (
        99.0
    )


class Limits(BaseModel, extra="forbid", frozen=True):
    """Use of the machine, in percent, at which three readings in a row make the run act."""

    profile: Annotated[
        Profile,
        Field(description="Limits profile of a kind of machine; overrides the mode."),
    ] = "default"
    ram: Annotated[
        Percent, Field(description="Host memory; in a container, of the container's limit.")
    ] = 85.0
    gpu: Annotated[Percent, Field(description="Device memory, of the total.")] = 90.0
    swap: Annotated[Percent, Field(description="Swap, of the total.")] = 50.0
    cpu: Annotated[
        Percent | None,
        Field(description="CPU use; at the limit, fewer workers; null: not monitored."),
    ] = None
    disk: Annotated[Percent, Field(description="File system of the run folder: warning only.")] = (
        95.0
    )
    critical: Critical = Critical()
    check_every_s: Annotated[
        float, Field(gt=0, description="Seconds between two measurements.")
    ] = 30.0
