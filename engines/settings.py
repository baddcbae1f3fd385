"""Settings of engines: processes, device, precision, compilation and memory."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

Device = Literal["auto", "cuda", "mps", "xpu", "cpu"]
Precision = Literal["fp32", "tf32", "bf16", "fp16", "bf16-params"]
Compile = Literal["auto", "on", "off"]


class Engine(BaseModel, extra="forbid", frozen=True):
    """The engine and its processes."""

    name: Annotated[
        str | None,
        Field(
            description="Engine; see `list engines`. Default: local, or ddp with more than "
            "one process."
        ),
    ] = None
    nproc: Annotated[
        int | None,
        Field(ge=1, description="Processes on this machine. Default: one per GPU, or one."),
    ] = None
    threads: Annotated[
        int | None,
        Field(
            ge=1,
            description="CPU threads per process. Default: an equal share of the cores.",
        ),
    ] = None
    bind_cores: Annotated[
        bool, Field(description="Pin each process to its share of the cores (Linux).")
    ] = False
    timeout_s: Annotated[
        float,
        Field(gt=0, description="Seconds that a rank waits for another rank before the run fails."),
    ] = 600.0
    max_restarts: Annotated[
        int,
        Field(
            ge=0,
            description="Restarts from the last checkpoint after a failure.",
        ),
    ] = 0
    ds_config: Annotated[
        str | None,
        Field(
            description="Your own DeepSpeed config (JSON); overrides the config of a zero engine."
        ),
    ] = None


class Memory(BaseModel, extra="forbid", frozen=True):
    """Ways to save memory."""

    activation_checkpointing: Annotated[
        str,
        Field(
            pattern=r"^(none|full|every [1-9][0-9]*)$",
            json_schema_extra={"allowed": "none, full, or such as 'every 2'"},
            description="Recompute activations in the backward pass: none, full, or `every "
            "N` (one of N blocks).",
        ),
    ] = "none"
    attention: Annotated[
        Literal["auto", "flash", "efficient", "math"],
        Field(
            description=(
                "Kernel of scaled dot-product attention; flash falls back to "
                "another if unavailable."
            )
        ),
    ] = "auto"
    return_freed: Annotated[
        bool,
        Field(
            description=(
                "Return freed host memory to the system at once (Linux): "
                "lower peak on a CPU, slower steps."
            )
        ),
    ] = False
    empty_cache_every: Annotated[
        int | None,
        Field(
            ge=1,
            description=(
                "Micro-batches between two releases of cached device memory; null: never."
            ),
            json_schema_extra={"unit": "micro-batches"},
        ),
    ] = None
