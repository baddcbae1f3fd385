"""The engines there are: where each one lives, what it needs, and one sentence on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Entry:
    """One engine; nothing is imported by naming it."""

    name: str
    sentence: str
    module: str
    cls: str
    needs: tuple[str, ...] = ()
    """Packages that must be there."""
    ds_config: str | None = None
    """File in ds_configs/deepspeed that lays out partitioning and offload."""
    processes: int | None = None
    """How many processes it runs on, where that is fixed."""
    settings: Mapping[str, object] = field(default_factory=dict)
    """What it sets by dotted key: above the mode, below the person's files."""


# ZeRO-3 gathers each weight in hooks of its module, which torch.compile cannot trace through.
_NO_COMPILE = {"compile": "off"}


ENGINES = {
    e.name: e
    for e in (
        Entry(
            "local",
            "plain PyTorch, in the process you started",
            "engines.local",
            "Local",
            processes=1,
        ),
        Entry(
            "ddp",
            "a full copy on each rank, gradients averaged while backward runs",
            "engines.ddp",
            "DDP",
        ),
        Entry(
            "fsdp",
            "weights, gradients and optimizer state sharded over ranks (FSDP2)",
            "engines.fsdp",
            "FSDP",
        ),
        Entry(
            "fsdp-offload",
            "fsdp with the shards kept in host memory",
            "engines.fsdp",
            "FSDPOffload",
        ),
        Entry(
            "oss",
            "optimizer state sharded over ranks (FairScale OSS)",
            "engines.oss",
            "OSS",
            ("fairscale",),
        ),
        Entry(
            "zero1",
            "optimizer state sharded over ranks (DeepSpeed)",
            "engines.deepspeed",
            "Zero",
            ("deepspeed",),
            "zero1.json",
        ),
        Entry(
            "zero2",
            "optimizer state and gradients sharded (DeepSpeed)",
            "engines.deepspeed",
            "Zero",
            ("deepspeed",),
            "zero2.json",
        ),
        Entry(
            "zero3",
            "weights, gradients and optimizer state sharded (DeepSpeed)",
            "engines.deepspeed",
            "Zero",
            ("deepspeed",),
            "zero3.json",
            settings=_NO_COMPILE,
        ),
        Entry(
            "zero2-offload",
            "zero2 with the optimizer and its state in host memory",
            "engines.deepspeed",
            "Zero",
            ("deepspeed",),
            "zero2-offload.json",
        ),
        Entry(
            "zero3-offload",
            "zero3 with weights, optimizer and its state in host memory",
            "engines.deepspeed",
            "Zero",
            ("deepspeed",),
            "zero3-offload.json",
            settings=_NO_COMPILE,
        ),
    )
}
