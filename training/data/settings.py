"""The settings of how batches reach the device, and of what is computed of them once."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

_KEPT = {"unless": {"feature_cache.mode": ["off"]}}
_WORKERS = {"unless": {"loader.workers": [0]}}


class Loader(BaseModel, extra="forbid", frozen=True):
    """How batches reach the device."""

    workers: Annotated[
        int,
        Field(
            ge=0,
            description="Processes a rank that prepare samples; 0: in the training process.",
        ),
    ] = 0
    prefetch: Annotated[
        int,
        Field(
            ge=1,
            description="Micro-batches each worker prepares ahead.",
            json_schema_extra=_WORKERS,
        ),
    ] = 2
    persistent: Annotated[
        bool,
        Field(
            description="Keep the workers of evaluation alive between evaluations.",
            json_schema_extra=_WORKERS,
        ),
    ] = True
    pin_memory: Annotated[
        bool, Field(description="Copy batches through page-locked memory (CUDA).")
    ] = True


class FeatureCache(BaseModel, extra="forbid", frozen=True):
    """What a frozen encoder makes of the data, computed once before training."""

    mode: Annotated[
        Literal["auto", "on", "off"],
        Field(
            description="Keep it on disk and read it in each step. auto: where it fits; on: or "
            "refuse to train; off: compute it anew each time."
        ),
    ] = "auto"
    limit_gb: Annotated[
        float,
        Field(
            gt=0,
            description="The most it may take on disk, in 10⁹ bytes.",
            json_schema_extra=_KEPT | {"unit": "GB"},
        ),
    ] = 20.0
    folder: Annotated[
        str | None,
        Field(
            description="Where it is kept, for all runs that can use it; of several nodes a folder "
            "that they share. Default: the program's cache.",
            json_schema_extra=_KEPT,
        ),
    ] = None
