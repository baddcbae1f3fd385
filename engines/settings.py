"""The settings that engines read: processes, device, precision, compilation and memory."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

Device = Literal["auto", "cuda", "mps", "xpu", "cpu"]
Precision = Literal["fp32", "tf32", "bf16", "fp16", "bf16-params"]
Compile = Literal["auto", "on", "off"]


class Engine(BaseModel, extra="forbid", frozen=True):
    """How the work is laid on the hardware."""

    name: Annotated[
        str | None,
        Field(
            description="The engine; see `list engines`. Default: local; ddp for more processes."
        ),
    ] = None
    nproc: Annotated[
        int | None,
        Field(ge=1, description="Processes on this machine. Default: one a GPU, or one."),
    ] = None
    threads: Annotated[
        int | None,
        Field(
            ge=1,
            description="CPU threads a process uses. Default: the cores there are, shared evenly.",
        ),
    ] = None
    bind_cores: Annotated[
        bool, Field(description="Pin each process to its own share of the cores (Linux).")
    ] = False
    timeout_s: Annotated[
        float, Field(gt=0, description="Seconds a rank waits for another before the run fails.")
    ] = 600.0
    max_restarts: Annotated[
        int,
        Field(
            ge=0,
            description="How often the processes are started again after a fault, from the last "
            "checkpoint.",
        ),
    ] = 0
    ds_config: Annotated[
        str | None,
        Field(description="DeepSpeed JSON of the person's own, over that of a zero engine."),
    ] = None


class Memory(BaseModel, extra="forbid", frozen=True):
    """What is traded for memory."""

    activation_checkpointing: Annotated[
        str,
        Field(
            pattern=r"^(none|full|every [1-9][0-9]*)$",
            json_schema_extra={"allowed": "none, full, or such as 'every 2'"},
            description="Recompute activations in backward: none, full, or `every N` blocks one.",
        ),
    ] = "none"
    attention: Annotated[
        Literal["auto", "flash", "efficient", "math"],
        Field(
            description="The kernel of scaled dot-product attention; flash: where it can be, "
            "else another."
        ),
    ] = "auto"
    return_freed: Annotated[
        bool,
        Field(
            description="Give freed main memory back to the system at once (Linux): on a CPU a "
            "lower peak, for some time."
        ),
    ] = False
    empty_cache_every: Annotated[
        int | None,
        Field(
            ge=1,
            description="Micro-batches between two times that the device's cache of free memory "
            "is given back; null: never.",
            json_schema_extra={"unit": "micro-batches"},
        ),
    ] = None
