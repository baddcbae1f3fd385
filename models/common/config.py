"""Data settings that mean the same in every family."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

SplitSeed = Annotated[
    int | None,
    Field(
        ge=0,
        lt=2**63,
        description="Seed that draws which groups train, validate and test, and what is fixed in "
        "validation samples, such as hidden parts. Default: `train.seed`.",
    ),
]

UnitOfChannels = Annotated[
    Literal["uV", "nV", "mV", "V"] | None,
    Field(
        description="Unit of the channels of EDF and BDF files whose header names none. Default: "
        "such channels are not read."
    ),
]


def parse_fold(text: str) -> tuple[int, int | None]:
    """The fold, from 1, and how many there are; None: one for each group. Raises ValueError."""
    match = re.fullmatch(r"([1-9]\d*)/([1-9]\d*|groups)", text)
    if match is None or (match[2] != "groups" and not int(match[2]) >= max(2, int(match[1]))):
        raise ValueError(f"{text} is no fold")
    return int(match[1]), None if match[2] == "groups" else int(match[2])


def _checked_fold(text: str) -> str:
    parse_fold(text)
    return text


_FOLDS = "k/K with k from 1 to K and K at least 2, such as 2/5; or k/groups, such as 3/groups"
Fold = Annotated[
    Annotated[str, AfterValidator(_checked_fold)] | None,
    Field(
        description="Fold of a cross-validation: part k of K validates, the other parts train, "
        "and the test groups are set aside. k/groups: the k-th group validates.",
        json_schema_extra={"allowed": _FOLDS},
    ),
]


class FamilySection(BaseModel):
    """A section of settings; the text below a field is its description."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class DataSection(FamilySection):
    """What the data of every family has; a family says what `path` may be."""

    path: str | list[str]
    control: Literal["real", "noise"] = "real"
    """Noise control. noise: destroy the information in the input; the score must fall to chance."""
    on_bad: Literal["stop", "skip"] = "stop"
    """Action on an unusable recording, file or row: stop, or skip and count it."""
    fraction: float = Field(default=1.0, gt=0, le=1)
    """Share of the data's groups to use."""
    split_seed: SplitSeed = None
    fold: Fold = None


_WHOLE: dict[str, Any] = {"only_if": {"model.stage": ["whole"]}}


class StagedModel(FamilySection):
    """A model whose encoder can be trained first."""

    stage: Literal["whole", "encoder"] = "whole"
    """whole: train the model. encoder: train its encoder, the other parts are frozen."""
    encoder: str | None = Field(default=None, json_schema_extra=_WHOLE)
    """Initial weights of the encoder: the run folder of a stage encoder, or a safetensors file.
    Default: random."""
    freeze_encoder: bool = Field(default=False, json_schema_extra=_WHOLE)
    """Do not train the encoder."""


def column_field(meanings: Sequence[str], example: str) -> Any:
    """The field of one item of the setting: a column, `=`, and one of `meanings`."""
    allowed = f"a column and its meaning, such as '{example}'; meanings: {', '.join(meanings)}"
    return Field(
        pattern=rf"^.+=({'|'.join(meanings)})$",
        json_schema_extra={"allowed": allowed},
    )


def declared_columns(columns: Sequence[str]) -> dict[str, str]:
    """The meaning of each column of the setting, by its name in lower case."""
    parts = (column.rpartition("=") for column in columns)
    return {name.strip().lower(): meaning for name, _, meaning in parts}
