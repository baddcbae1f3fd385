"""Settings of engines: processes, device, precision, compilation and memory."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Device = Literal["auto", "cuda", "mps", "xpu", "cpu"]
Precision = Literal["auto", "fp32", "tf32", "bf16", "fp16", "fp8"]
Compile = Literal["auto", "on", "off", "graphs"]


_FSDP: dict[str, Any] = {"only_if": {"engine.name": ["fsdp", "fsdp-offload"]}}


class EngineSection(BaseModel):
    """A section of settings; the text below a field is its description."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class EngineSettings(EngineSection):
    """The engine and its processes."""

    name: str | None = None
    """Engine; see `list engines`. auto: the fastest one that fits by the plan. Default: local, or
    ddp with more than one process; auto if memory is tight."""
    nproc: Annotated[int | None, Field(ge=1, le=10**6)] = None
    """Processes on this machine. Default: one per GPU, or one."""
    threads: Annotated[int | None, Field(ge=1, le=1024)] = None
    """CPU threads per process. Default: an equal share of the cores."""
    bind_cores: bool = False
    """Pin each process to its share of the physical cores (Linux)."""
    timeout_s: Annotated[float, Field(gt=0, le=10**8)] = 600.0
    """Seconds that a rank waits for another rank before the run fails."""
    max_restarts: Annotated[int, Field(ge=0, le=10**6)] = 0
    """Restarts from the last checkpoint after a failure."""
    hybrid_shard: Annotated[bool, Field(json_schema_extra=_FSDP)] = False
    """fsdp: shard within each node and replicate across nodes, for slow networks (HSDP)."""
    offload: Literal["states", "all"] | None = None
    """What an -offload engine keeps in host memory: states (of the optimizer, with gradients), or
    all (weights, too). Default: states under zero2-offload, else all."""
    ds_config: str | None = None
    """Your own DeepSpeed config (JSON); overrides the config of a zero engine."""


class Memory(EngineSection):
    """Ways to save memory."""

    activation_checkpointing: Annotated[
        str,
        Field(
            pattern=r"^(none|full|selective|every [1-9][0-9]{0,8})$",
            json_schema_extra={"allowed": "none, selective, full, or such as 'every 2'"},
        ),
    ] = "none"
    """Recompute activations in the backward pass: none, full, `every N` (one of N blocks), or
    selective (all but the outputs of matrix products, convolutions and attention)."""
    activation_offload: bool = False
    """Move the saved activations of blocks to pinned host memory until the backward pass (CUDA);
    with activation checkpointing, what that saves."""
    reduce_each_micro_batch: Annotated[bool, Field(json_schema_extra=_FSDP)] = False
    """fsdp: average gradients after each micro-batch: less memory, more communication.
    fsdp-offload always does."""
    attention: Literal["auto", "flash", "efficient", "cudnn", "math"] = "auto"
    """Kernel of scaled dot-product attention; flash and cudnn fall back to another if they cannot
    run."""
    return_freed: bool = False
    """Return freed host memory to the system at once (Linux): lower peak on a CPU, slower steps."""
    empty_cache_every: Annotated[
        int | None, Field(ge=1, le=10**9, json_schema_extra={"unit": "micro-batches"})
    ] = None
    """Micro-batches between two releases of cached device memory; null: never."""
