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
            description="Data-loader workers per rank (0: load in the main process).",
        ),
    ] = 0
    prefetch: Annotated[
        int,
        Field(
            ge=1,
            description="Micro-batches that each worker loads ahead.",
            json_schema_extra=_WORKERS,
        ),
    ] = 2
    persistent: Annotated[
        bool,
        Field(
            description="Keep the workers of evaluation between evaluations.",
            json_schema_extra=_WORKERS,
        ),
    ] = True
    pin_memory: Annotated[bool, Field(description="Copy batches through pinned memory (CUDA).")] = (
        True
    )


class FeatureCache(BaseModel, extra="forbid", frozen=True):
    """What a frozen encoder makes of the data, computed once before training."""

    mode: Annotated[
        Literal["auto", "on", "off"],
        Field(
            description=(
                "Cache the outputs of the frozen encoder on disk. auto: if "
                "they fit; on: or fail; off: recompute them in each step."
            )
        ),
    ] = "auto"
    limit_gb: Annotated[
        float,
        Field(
            gt=0,
            description="Maximum size of the cache, in 10⁹ bytes.",
            json_schema_extra=_KEPT | {"unit": "GB"},
        ),
    ] = 20.0
    folder: Annotated[
        str | None,
        Field(
            description=(
                "Folder of the cache, shared by runs and nodes. Default: the "
                "program's cache folder."
            ),
            json_schema_extra=_KEPT,
        ),
    ] = None
