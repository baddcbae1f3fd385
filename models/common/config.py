"""Data settings that mean the same in every family."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

Control = Annotated[
    Literal["real", "noise"],
    Field(
        description="Noise control. noise: destroy the information in the input; the score "
        "must fall to chance."
    ),
]
OnBad = Annotated[
    Literal["stop", "skip"],
    Field(description="Action on an unusable recording, file or row: stop, or skip and count it."),
]
Fraction = Annotated[float, Field(gt=0, le=1, description="Share of the data's groups to use.")]
