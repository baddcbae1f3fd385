"""Sizes and settings of the event_seg family."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field

from gearshift.models.common.config import DataSection, StagedModel

BINS = 10
"""Time bins of a voxel grid: input channels."""
CLASSES = 2
"""Output channels."""
MAX_LAYERS = 5
"""Maximum number of convolutions of the encoder, which halve the resolution."""


@dataclass(frozen=True)
class Size:
    """Dimensions of a convolutional encoder and decoder."""

    widths: tuple[int, ...]
    """Channels after each convolution of the encoder; the decoder mirrors them."""
    is_deep: bool
    """The first convolution keeps the resolution, and a 1×1 convolution ends the decoder."""
    sensor: tuple[int, int]
    """Height and width of the embedded recordings."""
    crop: tuple[int, int] | None = None
    """Height and width of a random crop; None: whole frames."""

    @property
    def parameters(self) -> int:
        """Exact number of parameters."""
        total = 0
        for ins, outs in pairwise((BINS, *self.widths)):
            total += 9 * ins * outs + 3 * outs
        for ins, outs in pairwise(self.widths[::-1]):
            total += 16 * ins * outs + 3 * outs
        return total + (1 if self.is_deep else 16) * self.widths[0] * CLASSES + CLASSES


SIZES = {
    "tiny": Size((8, 16, 32), False, (80, 110), (32, 44)),
    "lite": Size((32, 64, 128), False, (260, 346)),
    "lite-1M": Size((32, 64, 128, 256), True, (260, 346)),
    "full": Size((64, 128, 256, 512), True, (260, 346)),
}


class Model(StagedModel):
    """Convolutional encoder and decoder over voxel grids of events."""

    family: str = "event_seg"
    """Model family."""
    size: str = "full"
    """Model size; see `list models`."""
    widths: Annotated[
        list[Annotated[int, Field(ge=1, le=8192)]] | None,
        Field(
            min_length=2,
            max_length=MAX_LAYERS,
            json_schema_extra={
                "allowed": f"2 to {MAX_LAYERS} whole numbers, for example [32, 64, 128]"
            },
        ),
    ] = None
    """Channels after each convolution of the encoder; the decoder mirrors them. Default: those of
    the size."""
    foreground_weight: float | None = Field(default=None, gt=0)
    """Weight of the foreground in the loss. Default: background pixels per foreground pixel, at
    most 10, which prefers recall to IoU."""

    @property
    def parameters(self) -> int:
        """Exact number of parameters of a whole model with these settings."""
        size = SIZES[self.size]
        return replace(size, widths=tuple(self.widths or size.widths)).parameters


class Data(DataSection):
    """Recordings of event cameras."""

    path: str = "embedded:shapes"
    """File or folder of MVSEC or DSEC HDF5, or Prophesee RAW and DAT; or embedded:shapes."""
    sequences: list[Annotated[str, Field(min_length=1)]] = Field(
        default_factory=list,
        json_schema_extra={"allowed": "names of recordings, for example [outdoor_day1]"},
    )
    """Recordings to use, by the name of the sequence or the file. Default: all."""
    mvsec_sequence: str | None = None
    """Sequence to use alone of a folder of MVSEC recordings without `sequences`; the first one by
    name if it is missing. Default: none, use all."""
    control: Literal["real", "noise", "shuffle"] = "real"  # type: ignore[assignment]
    """noise: events at random pixels and times; shuffle: labels of another window. The score must
    fall to chance."""
    downsample: int = Field(default=1, ge=1, le=8)
    """Sensor pixels per sample pixel, along each axis."""
    window_ms: Annotated[
        float | None, Field(ge=0.001, le=3_600_000, json_schema_extra={"unit": "milliseconds"})
    ] = None
    """Window length before each mask or frame. Default: from one to the next."""
    sensor: Annotated[
        list[Annotated[int, Field(ge=1, le=8192)]] | None,
        Field(
            min_length=2,
            max_length=2,
            json_schema_extra={"allowed": "height and width, for example [480, 640]"},
        ),
    ] = None
    """Height and width of the sensor, if a recording lacks them. Default: the extent of the
    events."""
