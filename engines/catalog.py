"""The engines there are: where each one lives, what it needs, and one sentence on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec

from engines.base import Engine, EngineError, Options, World


@dataclass(frozen=True)
class Entry:
    """One engine; nothing is imported by naming it."""

    name: str
    sentence: str
    module: str
    builder: str
    """What in the module gives the engine when called with a world and options."""
    needs: tuple[str, ...] = ()
    """Packages that must be there."""
    ds_config: str | None = None
    """File in ds_configs/deepspeed that lays out partitioning and offload."""
    always_group: bool = True
    """Whether it needs a process group for a single process too."""
    processes: int | None = None
    """How many are started where nobody says how many; None: one a GPU."""
    shards_parameters: bool = False
    """Whether a rank updates parts of parameters, wherever they are cut."""
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
            "local",
            always_group=False,
            processes=1,
        ),
        Entry(
            "ddp",
            "a full copy on each rank, gradients averaged while backward runs",
            "engines.ddp",
            "ddp",
            always_group=False,
        ),
        Entry(
            "fsdp",
            "weights, gradients and optimizer state sharded over ranks (FSDP2)",
            "engines.fsdp",
            "fsdp",
            shards_parameters=True,
        ),
        Entry(
            "fsdp-offload",
            "fsdp with the shards kept in host memory",
            "engines.fsdp",
            "fsdp_offload",
            shards_parameters=True,
        ),
        Entry(
            "oss",
            "optimizer state sharded over ranks (FairScale OSS)",
            "engines.oss",
            "oss",
            ("fairscale",),
        ),
        Entry(
            "zero1",
            "optimizer state sharded over ranks (DeepSpeed)",
            "engines.zero.engine",
            "Zero",
            ("deepspeed",),
            "zero1.json",
            shards_parameters=True,
        ),
        Entry(
            "zero2",
            "optimizer state and gradients sharded (DeepSpeed)",
            "engines.zero.engine",
            "Zero",
            ("deepspeed",),
            "zero2.json",
            shards_parameters=True,
        ),
        Entry(
            "zero3",
            "weights, gradients and optimizer state sharded (DeepSpeed)",
            "engines.zero.engine",
            "Zero",
            ("deepspeed",),
            "zero3.json",
            shards_parameters=True,
            settings=_NO_COMPILE,
        ),
        Entry(
            "zero2-offload",
            "zero2 with the optimizer and its state in host memory",
            "engines.zero.engine",
            "Zero",
            ("deepspeed",),
            "zero2-offload.json",
            shards_parameters=True,
        ),
        Entry(
            "zero3-offload",
            "zero3 with weights, optimizer and its state in host memory",
            "engines.zero.engine",
            "Zero",
            ("deepspeed",),
            "zero3-offload.json",
            shards_parameters=True,
            settings=_NO_COMPILE,
        ),
    )
}


def find(name: str) -> Entry:
    """The entry called `name`; case, `-` and `_` make no difference. Raises EngineError."""
    wanted = name.lower().replace("_", "-")
    if wanted not in ENGINES:
        near = get_close_matches(wanted, ENGINES, 1)
        did_you_mean = f"; nearest: {near[0]}" if near else ""
        raise EngineError(
            f"engine '{name}' is not known; legal: {', '.join(ENGINES)}{did_you_mean}"
        )
    return ENGINES[wanted]


def missing(entry: Entry) -> list[str]:
    """The packages that `entry` needs and that are not installed; imports none of them."""
    return [package for package in entry.needs if find_spec(package) is None]


def build_engine(name: str, world: World, options: Options) -> Engine:
    """The engine called `name`. Raises EngineError where it cannot run here."""
    entry = find(name)
    if absent := missing(entry):
        able = ", ".join(e.name for e in ENGINES.values() if not missing(e))
        raise EngineError(
            f"engine '{entry.name}' needs the package {absent[0]}, which is not installed: "
            f"pip install {absent[0]}; engines that can run without: {able}"
        )
    return getattr(import_module(entry.module), entry.builder)(world, options)
