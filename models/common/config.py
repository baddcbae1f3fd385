"""Data settings that mean the same in every family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

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


class FamilySection(BaseModel):
    """A section of settings; the text below a field is its description."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


_WHOLE: dict[str, Any] = {"only_if": {"model.stage": ["whole"]}}


class StagedModel(FamilySection):
    """A model whose encoder can be trained first."""

    stage: Literal["whole", "encoder"] = "whole"
    """whole: train the model. encoder: pre-train its encoder on masked inputs, without labels."""
    encoder: Annotated[str | None, Field(json_schema_extra=_WHOLE)] = None
    """Initial weights of the encoder: the run folder of a stage encoder, or a safetensors file.
    Default: random."""
    freeze_encoder: Annotated[bool, Field(json_schema_extra=_WHOLE)] = False
    """Do not train the encoder."""


def column_field(meanings: Sequence[str], example: str) -> Any:
    """The field of one item of the setting: a column, `=`, and one of `meanings`."""
    return Field(
        pattern=rf"^.+=({'|'.join(meanings)})$",
        json_schema_extra={"allowed": f"a column and its meaning, such as '{example}'"},
    )
