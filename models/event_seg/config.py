"""The event_seg family's sizes and settings."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from models.common.config import Fraction, OnBad

BINS = 10
"""Time bins of a voxel grid: the channels that come in."""
CLASSES = 2
"""Channels that go out."""


@dataclass(frozen=True)
class Size:
    """One encoder and decoder of convolutions."""

    widths: tuple[int, ...]
    """Channels after each convolution of the encoder; the decoder mirrors them."""
    is_deep: bool
    """The first convolution keeps the resolution, and a 1×1 convolution ends the decoder."""
    sensor: tuple[int, int]
    """Height and width of the embedded recordings."""
    crop: tuple[int, int] | None = None
    """Height and width of a sample, cut out of a frame; None: whole frames."""

    @property
    def parameters(self) -> int:
        """The exact number of weights of the built model."""
        ins = (BINS, *self.widths)
        down = sum(9 * a * b + 3 * b for a, b in zip(ins[:-1], self.widths, strict=True))
        back = self.widths[::-1]
        up = sum(16 * a * b + 3 * b for a, b in pairwise(back))
        taps = 1 if self.is_deep else 16
        return down + up + taps * self.widths[0] * CLASSES + CLASSES


SIZES = {
    "tiny": Size((8, 16, 32), False, (80, 110), (32, 44)),
    "lite": Size((32, 64, 128), False, (260, 346)),
    "full": Size((64, 128, 256, 512), True, (260, 346)),
}

_RAW = "of a recording without frames and masks"


class Model(BaseModel, extra="forbid", frozen=True):
    """An encoder and decoder of convolutions over voxel grids of events."""

    family: Annotated[str, Field(description="The model family.")] = "event_seg"
    size: Annotated[str, Field(description="The size; see `list models`.")] = "full"
    objective: Annotated[
        Literal["auto", "edges", "masked-voxels"],
        Field(
            description="What is learnt: the labels, or, where there are none, the events on "
            "hidden pixels. auto: edges where there are labels."
        ),
    ] = "auto"


class Data(BaseModel, extra="forbid", frozen=True):
    """Recordings of event cameras."""

    path: Annotated[
        str,
        Field(
            description="A file or folder of MVSEC HDF5 or Prophesee RAW and DAT recordings; or "
            "embedded:shapes."
        ),
    ] = "embedded:shapes"
    control: Annotated[
        Literal["real", "noise", "shuffle"],
        Field(
            description="noise: as many events, anywhere; shuffle: labels of another time. The "
            "score must fall to chance."
        ),
    ] = "real"
    on_bad: OnBad = "stop"
    fraction: Fraction = 1.0
    downsample: Annotated[
        int, Field(ge=1, le=8, description="Sensor pixels along an edge of a pixel of the sample.")
    ] = 1
    window_ms: Annotated[
        float | None,
        Field(
            gt=0,
            json_schema_extra={"unit": "milliseconds"},
            description=f"Length of the windows {_RAW}. Default: 1000/30, or a thirtieth of a "
            "recording that is shorter than a second.",
        ),
    ] = None
    sensor: Annotated[
        list[Annotated[int, Field(ge=1)]] | None,
        Field(
            min_length=2,
            max_length=2,
            json_schema_extra={"allowed": "height and width, such as [480, 640]"},
            description="Height and width of the sensor, where a RAW file does not tell. Default: "
            "what the events reach.",
        ),
    ] = None
