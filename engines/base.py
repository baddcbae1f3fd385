"""The contract between the training loop and an engine, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn import Module, Parameter

Precision = Literal["fp32", "tf32", "bf16", "fp16", "bf16-params"]
Shape = tuple[int, ...]


FACTORS = {"row_var": 1, "col_var": 2}
"""Slots that have one element along an axis, counted from the last one."""


def kind_shape(kind: str, shape: Shape) -> Shape:
    """The shape of a piece of `kind` of a parameter of `shape`, flattened in C order.

    The parameter's own, but for FACTORS: the means of each row and of each column of the last two
    axes, of which a second moment is made.
    """
    if len(shape) < 2 or kind not in FACTORS:
        return shape
    axis = len(shape) - FACTORS[kind]
    return (*shape[:axis], 1, *shape[axis + 1 :])


class EngineError(Exception):
    """This engine cannot run here; the text says why, and what can."""


class PeersMissing(Exception):
    """Ranks did not come, or went, before all had met; the text names them. Trying again may do."""


class World(Protocol):
    """The processes that train together. Collective: sum, maximum, agree, broadcast, barrier."""

    rank: int
    size: int
    local_rank: int
    local_size: int
    node: int
    device: torch.device

    def sum(self, value: Tensor) -> Tensor:
        """The elementwise sum of `value` over ranks, on its device; the input is unchanged."""

    def maximum(self, value: Tensor) -> Tensor:
        """The elementwise maximum of `value` over ranks; the input is unchanged."""

    def agree(self, flags: int) -> int:
        """The bitwise or of every rank's `flags` (below 2**16)."""

    def broadcast(self, data: bytes | None, source: int = 0) -> bytes:
        """The `data` of rank `source`, on every rank; `data` of the other ranks is ignored."""

    def barrier(self, timeout_s: float | None = None) -> None:
        """Wait for every rank; raises TimeoutError after `timeout_s` (default: the group's own)."""

    def close(self) -> None:
        """Leave the process group. Not collective."""


@dataclass(frozen=True)
class OptimizerSpec:
    """How to build the optimizer once parameters are in their final place.

    `groups` maps (name, parameter) to the number of its group in `options`; `build` makes a torch
    optimizer from a list of group dicts (`params`, then the options of that group).
    """

    options: Sequence[Mapping[str, Any]]
    group_of: Callable[[str, Parameter], int]
    build: Callable[[list[dict[str, Any]]], torch.optim.Optimizer]
    clip_norm: float | None


@dataclass(frozen=True)
class Options:
    """What an engine is told about precision, memory and compilation."""

    precision: Precision = "fp32"
    compile: bool = False
    activation_checkpointing: int = 0
    """0: none; 1: every block; n: every n-th block."""
    channels_last: bool = False
    ds_config: Mapping[str, Any] = field(default_factory=dict)
    """DeepSpeed's own JSON, already merged and checked; empty for other engines."""
    micro_batch: int = 1
    accumulation: int = 1
    offload_threads: int | None = None
    """Threads a process may use for the optimizer on the CPU; None: from the cores there are."""


@dataclass(frozen=True)
class Update:
    """What one optimizer update did: the gradient norm before clipping, and a skipped overflow."""

    norm: Tensor
    """Scalar on the device, of the gradients of the whole global batch; not finite on overflow."""
    skipped: bool = False
    loss_scale: float | None = None


@dataclass(frozen=True)
class Piece:
    """A flat interval of one tensor that this rank holds, as a live view that may be written to.

    `kind` is "weight" or the name of an optimizer slot ("exp_avg", ...). `start` counts elements
    of the flattened tensor, whose shape `kind_shape` tells. `replicated`: every rank holds the same
    interval.
    """

    kind: str
    name: str
    start: int
    data: Tensor
    replicated: bool


@dataclass(frozen=True)
class State:
    """All that an engine trained, by the parameter's own name, fp32; live views, not copies.

    Over all ranks the pieces of a kind cover every tensor exactly once (replicated ones on each).
    Tied weights stand once, under the first name; frozen parameters have no slots.
    """

    shapes: Mapping[str, Shape]
    """Of the parameters."""
    pieces: Sequence[Piece]
    buffers: Mapping[str, Tensor]
    steps: Mapping[str, float]
    """Optimizer steps taken, by parameter name; those that this rank holds."""
    groups: Sequence[Mapping[str, Any]]
    """Options of each parameter group, with "names", the parameters in it."""
    loss_scale: Mapping[str, float]


class Engine(Protocol):
    """One way to lay a model on ranks. Collective: all ranks call all methods in one order."""

    world: World

    @property
    def without_gradient(self) -> Sequence[str]:
        """Parameters that train but got no gradient before the first update; empty until then."""

    def prepare(self, model: Module, optimizer: OptimizerSpec, blocks: Sequence[Module]) -> Module:
        """Place, shard and wrap `model` at its `blocks`, then build its optimizer."""

    @property
    def groups(self) -> list[dict[str, Any]]:
        """The optimizer's live parameter groups that are not empty, in the order of the spec.

        Write "lr" here.
        """

    def accumulate(self, last: bool) -> AbstractContextManager[None]:
        """Hold gradients on their rank; on the `last` micro-batch average them over ranks."""

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of `loss`, a scalar the loop has normalised."""

    def step(self) -> Update:
        """Clip, update, clear. All ranks skip together when the gradients overflowed in fp16."""

    def discard(self) -> None:
        """Clear the gradients after the last micro-batch and take no update."""

    @property
    def can_retry_step(self) -> bool:
        """Whether the next pass finds everything in place where one raised, after `discard`."""

    @property
    def gathers_weights(self) -> bool:
        """Whether a forward pass waits for other ranks, which hold parts of its weights."""

    def resize(self, micro_batch: int, accumulation: int) -> None:
        """Expect `accumulation` micro-batches of `micro_batch` samples from the next step on.

        Between two steps only; the same on every rank.
        """

    def state(self) -> State:
        """Weights, slots, buffers and groups; slots that do not exist yet are made as zeros."""

    def load(self, steps: Mapping[str, float], loss_scale: Mapping[str, float]) -> None:
        """Take over the counts of another state, after pieces and buffers were written to.

        `steps` and `loss_scale` are as in State, of all parameters; without a loss scale of its
        own the engine ignores the latter, an empty one leaves what it has. The working weights
        follow. Raises EngineError on every rank alike where this engine cannot hold `steps`.
        """

    def refresh(self) -> None:
        """Make the working weights follow the weight pieces after those were written to."""

    def close(self) -> None:
        """Give back what the engine holds."""
