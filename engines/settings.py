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

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class EngineSettings(EngineSection):
    """The engine and its processes."""

    name: str | None = None
    """Engine; see `list engines`. auto: the simplest one that fits by the plan. Default: local, or
    ddp with more than one process; auto if memory is tight."""
    nproc: int | None = Field(default=None, ge=1, le=10**6)
    """Processes on this machine. Default: one per GPU, or one."""
    threads: int | None = Field(default=None, ge=1, le=1024)
    """CPU threads per process. Default: an equal share of the cores."""
    shares: Literal["equal", "auto"] | list[Annotated[int, Field(le=10**9)]] = Field(
        default="equal",
        json_schema_extra={"allowed": "equal, auto, or a whole number for each process: [3, 1]"},
    )
    """How processes share the global batch: equally, in proportion to numbers, or (auto) by their
    measured speed. Each has as many micro-batches, of its own size; `train.micro_batch` is their
    mean. Default: equal, or auto on unlike GPUs."""
    bind_cores: bool = False
    """Pin each process to its share of the physical cores (Linux)."""
    timeout_s: float = Field(default=600.0, gt=0, le=10**8)
    """Seconds that a rank waits for another rank before the run fails."""
    max_restarts: int = Field(default=0, ge=0, le=10**6)
    """Restarts from the last checkpoint after a failure."""
    hybrid_shard: bool = Field(default=False, json_schema_extra=_FSDP)
    """fsdp: shard within each node and replicate across nodes, for slow networks (HSDP)."""
    offload: Literal["states", "all"] | None = None
    """What an -offload engine keeps in host memory: states (of the optimizer, with gradients), or
    all (weights, too). Default: states under zero2-offload, else all."""
    ds_config: str | None = None
    """Your own DeepSpeed config (JSON); overrides the config of a zero engine."""


class Memory(EngineSection):
    """Ways to save memory."""

    activation_checkpointing: str = Field(
        default="none",
        pattern=r"^(none|full|selective|every [1-9][0-9]{0,8})$",
        json_schema_extra={"allowed": "none, selective, full, or such as 'every 2'"},
    )
    """Recompute activations in the backward pass: none, full, `every N` (one of N blocks), or
    selective (all but the outputs of matrix products, convolutions and attention)."""
    activation_offload: bool = False
    """Move the saved activations of blocks to pinned host memory until the backward pass (CUDA);
    with activation checkpointing, what that saves."""
    reduce_each_micro_batch: bool = Field(default=False, json_schema_extra=_FSDP)
    """fsdp: average gradients after each micro-batch: less memory, more communication.
    fsdp-offload always does."""
    attention: Literal["auto", "flash", "efficient", "cudnn", "math"] = "auto"
    """Kernel of scaled dot-product attention; flash and cudnn fall back to another if they cannot
    run."""
    return_freed: bool = False
    """Return freed host memory to the system at once (Linux): lower peak on a CPU, slower steps."""
    empty_cache_every: int | None = Field(
        default=None, ge=1, le=10**9, json_schema_extra={"unit": "micro-batches"}
    )
    """Micro-batches between two releases of cached device memory; null: never."""
