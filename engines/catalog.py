"""The catalog of engines: module, requirements and a description of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from typing import Literal

from gearshift.engines.base import Engine, EngineError, Options, World

Held = Literal["replicated", "sharded", "host"]
"""A full copy on each rank, a shard on each, or a shard of each rank in the memory of its host."""


@dataclass(frozen=True)
class Placement:
    """Where an engine keeps what a step of training needs, from which its memory follows."""

    weights: Held = "replicated"
    gradients: Held = "replicated"
    optimizer: Held = "replicated"
    """The state of the optimizer, and fp32 weights beside those of 16 bits."""

    @property
    def spread_parts(self) -> int:
        """How many of the three parts are not on every rank."""
        return sum(held != "replicated" for held in (self.weights, self.gradients, self.optimizer))

    @property
    def offloads(self) -> bool:
        """Whether a part is in the memory of the host."""
        return "host" in (self.weights, self.gradients, self.optimizer)

    def state_bytes(
        self,
        parameters: int,
        ranks: int,
        weight_size: int,
        state_size: int,
        trained: int,
    ) -> StateBytes:
        """The bytes of a rank between two steps, and its gradients.

        `weight_size`: bytes of a weight in the passes; below 4 there are fp32 weights beside them.
        `state_size`: bytes of optimizer state for each weight. `trained`: how many of the
        parameters are trained.
        """
        masters = 4 if weight_size < 4 else 0
        parts = [
            (self.weights, weight_size * parameters),
            (self.gradients, weight_size * trained),
            (self.optimizer, (masters + state_size) * trained),
        ]
        shares = {"replicated": 1.0, "sharded": 1 / ranks, "host": 0.0}
        device = sum(size * shares[held] for held, size in parts)
        host = sum(size / ranks for held, size in parts if held == "host")
        return StateBytes(round(device), round(host))


@dataclass(frozen=True)
class StateBytes:
    """Bytes of weights, gradients and optimizer state of one rank."""

    device: int
    host: int


@dataclass(frozen=True)
class Entry:
    """One engine; importing this module imports no engine."""

    name: str
    sentence: str
    module: str
    builder: str
    """The callable in the module that builds the engine from a world and options."""
    needs: tuple[str, ...] = ()
    """Required packages."""
    ds_config: str | None = None
    """The file in ds_configs/deepspeed with partitioning and offload."""
    always_group: bool = True
    """Whether it needs a process group for a single process, too."""
    processes: int | None = None
    """Default number of processes; None: one per GPU."""
    shards_parameters: bool = False
    """Whether a rank updates shards of parameters instead of full ones."""
    placement: Placement = Placement()
    has_fp32_copies: bool = False
    """Whether it updates copies of the weights in float32, whatever the type of the weights."""
    mixed_types: frozenset[str] = frozenset()
    """Types of parameters that it trains side by side; of others, one type at a time."""
    types_by_block: bool = False
    """Whether each block may have parameters of another type."""
    gradient_hooks: tuple[str, ...] = ()
    """The methods of parameters whose hooks it calls, as plain PyTorch does."""
    offload: tuple[str, ...] = ()
    """Values of engine.offload that it can have, the default first."""
    is_traced: bool = False
    """Whether a plan traces the engine itself, with ranks that do not exist; otherwise it traces
    the model alone, and the placement tells what a rank holds."""
    settings: Mapping[str, object] = field(default_factory=dict)
    """Settings by dotted key; they override the mode, and user settings override them."""

    def placed(self, offload: str | None) -> Placement:
        """The placement under a value of engine.offload; None: the default."""
        if offload in self.offload[1:]:  # "states"
            return replace(self.placement, weights="sharded")
        return self.placement


_ALL_HOOKS = ("register_hook", "register_post_accumulate_grad_hook")
_FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})
SHARDED = Placement("sharded", "sharded", "sharded")
ON_HOST = Placement("host", "host", "host")
UPDATED_ON_HOST = Placement(gradients="host", optimizer="host")


def _zero(name: str, sentence: str, placement: Placement, offload: tuple[str, ...] = ()) -> Entry:
    # ZeRO-3 gathers each weight in hooks of its module, which torch.compile cannot trace through.
    is_gathered = placement.weights != "replicated"
    mixed = _FLOATS - {"float64"}
    if is_gathered and not offload:
        mixed = frozenset()
    return Entry(
        name,
        sentence,
        "gearshift.engines.zero.engine",
        "Zero",
        ("deepspeed",),
        f"{name}.json",
        shards_parameters=True,
        placement=placement,
        has_fp32_copies=True,
        mixed_types=mixed,
        # Gradients of earlier micro-batches are elsewhere, so that no hook after them sees these.
        gradient_hooks=("register_hook",),
        offload=offload,
        settings={"compile": "off"} if is_gathered else {},
    )


ENGINES = {
    e.name: e
    for e in (
        Entry(
            "local",
            "plain PyTorch in a single process",
            "gearshift.engines.local",
            "local",
            always_group=False,
            processes=1,
            mixed_types=_FLOATS,
            gradient_hooks=_ALL_HOOKS,
        ),
        Entry(
            "ddp",
            "a replica on each rank; gradients are averaged during the backward pass",
            "gearshift.engines.ddp",
            "ddp",
            always_group=False,
            mixed_types=_FLOATS,
            gradient_hooks=_ALL_HOOKS,
        ),
        Entry(
            "fsdp",
            "weights, gradients and optimizer state sharded over ranks (FSDP2)",
            "gearshift.engines.fsdp",
            "fsdp",
            shards_parameters=True,
            placement=SHARDED,
            types_by_block=True,
            is_traced=True,
        ),
        Entry(
            "fsdp-offload",
            "fsdp with the shards kept in host memory",
            "gearshift.engines.fsdp",
            "fsdp_offload",
            shards_parameters=True,
            placement=ON_HOST,
            types_by_block=True,
            offload=("all",),
            is_traced=True,
        ),
        Entry(
            "oss",
            "optimizer state sharded over ranks (FairScale OSS)",
            "gearshift.engines.oss",
            "oss",
            ("fairscale",),
            placement=Placement(optimizer="sharded"),
            gradient_hooks=_ALL_HOOKS,
        ),
        _zero(
            "zero1",
            "optimizer state sharded over ranks (DeepSpeed)",
            Placement(optimizer="sharded"),
        ),
        _zero(
            "zero2",
            "optimizer state and gradients sharded (DeepSpeed)",
            Placement(gradients="sharded", optimizer="sharded"),
        ),
        _zero("zero3", "weights, gradients and optimizer state sharded (DeepSpeed)", SHARDED),
        _zero(
            "zero2-offload",
            "zero2 with the optimizer and its state in host memory",
            UPDATED_ON_HOST,
            ("states",),
        ),
        _zero(
            "zero3-offload",
            "zero3 with weights, optimizer and its state in host memory",
            ON_HOST,
            ("all", "states"),
        ),
    )
}


def find(name: str) -> Entry:
    """The entry `name`; case, `-` and `_` do not matter. Raises EngineError."""
    wanted = name.lower().replace("_", "-")
    if wanted not in ENGINES:
        nearest = get_close_matches(wanted, ENGINES, 1)
        did_you_mean = f"; did you mean {nearest[0]}?" if nearest else ""
        raise EngineError(f"unknown engine '{name}'; allowed: {', '.join(ENGINES)}{did_you_mean}")
    return ENGINES[wanted]


def by_processes(count: int) -> str:
    """The engine of a run that names none: the first one for so many processes."""
    return next(e.name for e in ENGINES.values() if (e.processes == 1) == (count == 1))


def missing(entry: Entry) -> list[str]:
    """The packages that `entry` requires and that are not installed; imports none of them."""
    return [package for package in entry.needs if find_spec(package) is None]


def build_engine(name: str, world: World, options: Options) -> Engine:
    """Build the engine `name`. Raises EngineError if it cannot run here."""
    entry = find(name)
    absent = missing(entry)
    if absent:
        able = ", ".join(e.name for e in ENGINES.values() if not missing(e))
        raise EngineError(
            f"engine '{entry.name}' requires the package {absent[0]}, which is not installed: "
            f"pip install {absent[0]}; engines without it: {able}"
        )
    engine = getattr(import_module(entry.module), entry.builder)(world, options)
    if options.precision not in ("fp32", "tf32"):
        from gearshift.engines.frozen_weights import FrozenWeights

        engine = FrozenWeights(engine, options, is_sharded=entry.shards_parameters)
    return engine
