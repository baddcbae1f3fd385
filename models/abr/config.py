"""Sizes, exact parameter counts and settings of the abr family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from gearshift.models.common.config import (
    DataSection,
    FamilySection,
    StagedModel,
    UnitOfChannels,
    column_field,
)
from gearshift.models.common.data_reports import IGNORE


@dataclass(frozen=True)
class Size:
    """The dimensions of one network: `base` channels at the full rate, doubled at each level."""

    base: int
    levels: int
    layers: int
    """Transformer layers of a decoder level; the bottleneck has two at every size."""
    heads: int
    states: int
    """States of each state space layer."""
    parameters: int
    """The exact number of parameters."""
    dropout: float = 0.1


SIZES = {
    # No dropout: sixteen channels are too few.
    "tiny": Size(base=16, levels=2, layers=1, heads=2, states=8, parameters=153_961, dropout=0.0),
    "lite": Size(base=32, levels=2, layers=3, heads=8, states=64, parameters=820_449),
    "full": Size(base=64, levels=4, layers=3, heads=8, states=64, parameters=46_720_259),
}


Weight = Annotated[float, Field(ge=0)]
Epochs = Annotated[float, Field(ge=0, le=10**6, json_schema_extra={"unit": "epochs"})]


class LossSettings(FamilySection):
    """Weights of the loss terms, and their form."""

    regression: Literal["mse", "huber"] = "mse"
    """Regression loss of signal, latency and amplitude; huber is linear beyond 1."""
    signal: Weight = 1.0
    """Loss weight of the reconstruction."""
    exists: Weight = 0.5
    """Loss weight of the existence of wave V."""
    latency: Weight = 1.0
    """Loss weight of the latency of wave V."""
    amplitude: Weight = 1.0
    """Loss weight of the amplitude of wave V."""
    # `class` is a keyword of Python, so only the key can have that name.
    class_: Weight = Field(default=1.5, alias="class")
    """Loss weight of the kind of hearing loss."""
    threshold: Weight = 0.8
    """Loss weight of the threshold."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of each class label spread over all classes."""


class Curriculum(FamilySection):
    """The epoch at which each loss term starts; earlier in short runs."""

    peak: Epochs = 5.0
    """Start of existence, latency and amplitude of wave V."""
    threshold: Epochs = 10.0
    """Start of the threshold."""
    class_: Epochs = Field(default=3.0, alias="class")
    """Start of the hearing loss."""
    ramp: Epochs = 5.0
    """Length of the ramp of a loss term from 0 to its weight."""


class Model(StagedModel):
    """A convolutional encoder and decoder with state space layers, attention and four heads."""

    family: str = "abr"
    """Model family."""
    size: str = "full"
    """Model size; see `list models`."""
    loss: LossSettings = LossSettings()
    curriculum: Curriculum = Curriculum()


COLUMNS = (
    "patient_id",
    "age",
    "intensity",
    "rate",
    "fmp",
    "hear_loss",
    "v_latency",
    "v_amplitude",
    "threshold",
    "polarity",
    "rejected",
    IGNORE,
)
"""What a column of a table may mean."""
CLASS_NAMES = ("normal", "neuropathy", "sensorineural", "total", "conductive")
UNKNOWN = "unknown"
"""The class of a response without a label."""
Classes = list[Annotated[str, column_field((*CLASS_NAMES, UNKNOWN), "SNHL=sensorineural")]]
Columns = list[Annotated[str, column_field(COLUMNS, "Level (dB)=intensity")]]


class Data(DataSection):
    """Averaged responses to train on."""

    path: str = "embedded:patients"
    """A file or folder of responses: EPL text, a table (CSV, TSV, XLSX), EDF, BDF, EEGLAB or
    BrainVision; or embedded:patients, embedded:few-patients."""
    control: Literal["real", "noise", "noise-signal"] = "real"  # type: ignore[assignment]
    """Noise control. noise: exchange signal and examination facts between patients; the score must
    fall to chance. noise-signal: exchange the signal only; reported only."""
    shares: Literal["balanced", "clinical"] = "balanced"
    """Frequency of each hearing loss among the embedded patients."""
    columns: Columns = Field(default_factory=list)
    """What columns of a table mean whose names are not known, such as "Level (dB)=intensity"; other
    meanings: patient_id, hear_loss, age, rate, fmp, v_latency, v_amplitude, threshold, polarity,
    rejected, ignore."""
    classes: Classes = Field(default_factory=list)
    """What labels of the column hear_loss mean that are neither a class nor its number, such as
    "SNHL=sensorineural"; unknown: the response has no label."""
    sweeps: int = Field(default=1000, ge=2, le=10**6)
    """Sweeps of a recording to average into one response."""
    reject_uv: float = Field(
        default=40.0,
        gt=0,
        le=10**9,
        json_schema_extra={"unit": "microvolts"},
    )
    """Exclude sweeps beyond this amplitude from the average."""
    channel: str | None = None
    """Channel of a recording. Default: its first EEG channel."""
    unit: UnitOfChannels = None


POINTS = 200
"""Samples of a response, at every size."""
STATIC = 4
"""Examination facts: age, level, rate, Fmp."""
CONDITION = 8
"""Width of the condition computed from these facts."""
CLASSES = 5
MAX_DISTANCE = 32
"""Largest relative position of self-attention; larger distances share its embedding."""
