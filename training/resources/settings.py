"""The settings of watching the machine: what may be in use, and how often that is looked at."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

Percent = Annotated[float, Field(gt=0, le=100, json_schema_extra={"unit": "percent"})]
Profile = Literal["default", "mac", "cpu-only"]


class Critical(BaseModel, extra="forbid", frozen=True):
    """Use in percent at which one reading is enough to act."""

    ram: Annotated[Percent, Field(description="Main memory, of what there is.")] = 95.0
    gpu: Annotated[Percent, Field(description="Device memory, of what there is.")] = 95.0
    swap: Annotated[Percent, Field(description="Swap, of what there is.")] = 80.0
    disk: Annotated[
        Percent, Field(description="The file system of the run folder: the run saves and ends.")
    ] = 99.0


class Limits(BaseModel, extra="forbid", frozen=True):
    """Use of the machine, in percent, at which three readings in a row make the run act."""

    profile: Annotated[
        Profile,
        Field(description="Settings for a kind of machine, above those of the mode."),
    ] = "default"
    ram: Annotated[Percent, Field(description="Main memory; inside a container, of its limit.")] = (
        85.0
    )
    gpu: Annotated[Percent, Field(description="Device memory, of what there is.")] = 90.0
    swap: Annotated[Percent, Field(description="Swap, of what there is.")] = 50.0
    cpu: Annotated[
        Percent | None,
        Field(description="Processors that may be used: fewer workers; null: not watched."),
    ] = None
    disk: Annotated[
        Percent, Field(description="The file system of the run folder: said, nothing more.")
    ] = 95.0
    critical: Critical = Critical()
    check_every_s: Annotated[float, Field(gt=0, description="Seconds between two readings.")] = 30.0
