"""The contract between the training loop and an engine, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import Tensor
    from torch.distributed import Store
    from torch.nn import Module, Parameter

Precision = Literal["fp32", "tf32", "bf16", "fp16", "fp8"]
Shape = tuple[int, ...]
Numbers = Mapping[str, float]
"""By name, such as the steps of each parameter."""
Blocks = Sequence["Module"]


FACTORS = {"row_var": 1, "col_var": 2}
"""Factored slots of Adafactor: the axis, counted from the last one, with one element."""


def kind_shape(kind: str, shape: Shape) -> Shape:
    """The shape of a tensor of `kind` for a parameter of `shape`, flattened in C order.

    It is the parameter's own shape, except for FACTORS: the means of each row and of each column
    of the last two axes, the factors of a second moment.
    """
    if len(shape) < 2 or kind not in FACTORS:
        return shape
    axis = len(shape) - FACTORS[kind]
    return (*shape[:axis], 1, *shape[axis + 1 :])


LR_FACTOR = "lr_factor"
PART = "part"
"""Options of a parameter group that no optimizer reads: the factor of its learning rate, and the
part of the model that has it."""
KEEPS_FP32 = "keeps_fp32"
"""The option of a group whose moments are fp32. Its parameters are small, and DeepSpeed's
optimizers see one flat tensor of all parameters of a group, which is large."""


class EngineError(Exception):
    """This engine cannot run here; the message has the reason and an alternative."""


class PeersMissing(Exception):
    """Ranks are missing at the rendezvous, or have ended; the message names them."""


class World(Protocol):
    """The processes that train together.

    Collective: all methods but check_peers, host_memory and close.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int
    device: torch.device
    store: Store | None
    """What ranks share without a collective; None: there is no process group."""

    def sum(self, value: Tensor) -> Tensor:
        """The elementwise sum of `value` over ranks, on its device; the input stays unchanged."""

    def maximum(self, value: Tensor) -> Tensor:
        """The elementwise maximum of `value` over ranks; the input stays unchanged."""

    def agree(self, flags: int) -> int:
        """The bitwise or of the `flags` (below 2**16) of all ranks."""

    def agree_later(
        self, flags: int, counts: Sequence[int] = ()
    ) -> Callable[[], tuple[int, list[int]]]:
        """Start `agree`, and the sum of each of `counts`; the result waits for the other ranks."""

    def broadcast(self, data: bytes | None, source: int = 0) -> bytes:
        """The `data` of rank `source`, on every rank; `data` of the other ranks is ignored.

        Waits for the source without a limit.
        """

    def rank_0_first(self, work: Callable[[], None]) -> None:
        """Call `work` on rank 0, then on all others; each waits, without a limit, for all of them.

        Raises whatever `work` raises.
        """

    def wait_for_all(self) -> None:
        """Wait, without a limit, for every rank: before a collective after work on a disk.

        A collective would end with the time-out of the process group, which is for collectives.
        """

    def connecting(self) -> AbstractContextManager[None]:
        """Around what makes process groups: at its end only ranks are connected by them."""

    def check_peers(self) -> None:
        """Raise PeersMissing if the process of another rank of this machine has ended.

        Not collective.
        """

    def host_memory(self, size: int) -> Tensor:
        """`size` bytes for copies to and from the device. Raises OSError if there is no memory."""

    def close(self) -> None:
        """Leave the process group. Not collective."""


@dataclass(frozen=True)
class OptimizerSpec:
    """The recipe of the optimizer, which is built once parameters are placed or sharded.

    `group_of` maps (name, parameter) to the index of its group in `options`; `build` makes a torch
    optimizer from a list of group dicts (`params` and the options of that group).
    """

    options: Sequence[Mapping[str, Any]]
    group_of: Callable[[str, Parameter], int]
    build: Callable[[list[dict[str, Any]]], torch.optim.Optimizer]
    clip_norm: float | None


@runtime_checkable
class HasSlots(Protocol):
    """An optimizer that is not one of torch's."""

    def slots(self, group: Mapping[str, Any]) -> tuple[str, ...]:
        """The state tensors of each parameter of `group`; all with `exp_avg` count their steps."""


@runtime_checkable
class MakesSlots(Protocol):
    """An optimizer that stores state tensors in fewer bits than fp32."""

    def new_slot(self, kind: str, parameter: Tensor) -> Tensor:
        """Zeros for the part of `parameter` that this rank holds; copied from and to as fp32."""


@runtime_checkable
class SharesWork(Protocol):
    """An optimizer that divides its work among the ranks that hold the same parameters."""

    shares_work: bool
    """False: each rank has parameters of its own."""


@dataclass(frozen=True)
class Options:
    """The options of an engine: precision, memory, compilation and batch."""

    precision: Precision = "fp32"
    compile: bool = False
    graphs: bool = False
    """Whether compiled graphs of fixed shapes are replayed as CUDA graphs."""
    eager_on_failure: bool = False
    """Run without compilation where it fails, instead of raising."""
    activation_checkpointing: int = 0
    """0: no block; 1: every block; n: every n-th block."""
    keep_products: bool = False
    """Whether such a block keeps the outputs of matrix products and of attention."""
    activation_offload: bool = False
    """Whether activations of blocks are in host memory between their passes."""
    channels_last: bool = False
    hybrid_shard: bool = False
    """fsdp: shard within each node, and replicate across nodes."""
    reduce_each_micro_batch: bool = False
    """fsdp: average the gradients of each micro-batch at once."""
    ds_config: Mapping[str, Any] = field(default_factory=dict)
    """The DeepSpeed config, merged and validated; empty for other engines."""
    micro_batch: int = 1
    accumulation: int = 1
    offload_threads: int | None = None
    """CPU threads of an offloaded optimizer per process; None: an even share of the cores."""
    frozen_folder: Path | None = None
    """A folder for the fp32 values of frozen weights that have 16 bits; None: they are lost."""


@dataclass(frozen=True)
class Update:
    """The result of an optimizer update, with the gradient norm before clipping."""

    norm: Tensor
    """Scalar on the device, of the gradients of the whole global batch; not finite on overflow."""
    skipped: bool = False
    """No weight changed, and nothing is at fault: a smaller loss scale may prevent the overflow."""
    loss_scale: float | None = None


@dataclass(frozen=True)
class Piece:
    """A flat interval of one tensor that this rank holds, as a writable view.

    `kind` is "weight" or the name of an optimizer slot ("exp_avg", ...). `start` counts elements
    of the flattened tensor of shape `kind_shape`. `replica`: the index of this rank among those
    with the same interval, and their number.
    """

    kind: str
    name: str
    start: int
    data: Tensor
    replica: tuple[int, int] = (0, 1)
    source: Tensor | None = None
    """The parameter that `data` views, to which a forward pass may give other memory."""


@dataclass(frozen=True)
class State:
    """The training state of an engine by parameter name; views, not copies.

    All is fp32, but for frozen weights of 16 bits without `Options.frozen_folder`, and slots of
    MakesSlots.

    Over all ranks the first replicas of a kind cover every tensor exactly once. Tied weights appear
    once, under the first name; frozen parameters have no slots.
    """

    shapes: Mapping[str, Shape]
    """Of the parameters."""
    pieces: Sequence[Piece]
    buffers: Mapping[str, Tensor]
    steps: Numbers
    """Optimizer steps taken, by the names of the parameters that this rank holds."""
    groups: Sequence[Mapping[str, Any]]
    """The options of each parameter group, with "names", its parameters."""
    loss_scale: Numbers


class Engine(Protocol):
    """A way to place a model on ranks. Collective: all ranks call all methods in one order."""

    world: World

    @property
    def without_gradient(self) -> Sequence[str]:
        """Trainable parameters without a gradient in the first update; empty until then."""

    def prepare(self, model: Module, optimizer: OptimizerSpec, blocks: Blocks) -> Module:
        """Place, shard and wrap `model` at its `blocks`, then build its optimizer."""

    @property
    def groups(self) -> list[dict[str, Any]]:
        """The optimizer's parameter groups that are not empty, in the order of the spec.

        Assign "lr" here.
        """

    def accumulate(self, last: bool) -> AbstractContextManager[None]:
        """Hold gradients on their rank; on the `last` micro-batch average them over ranks."""

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of `loss`, a scalar that the loop has normalized."""

    def step(self) -> Update:
        """Clip, update, clear. No rank updates with fp16 gradients that overflowed."""

    def settle(self) -> None:
        """Wait for an update that continues after `step`; `state` and forward passes do so, too."""

    def discard(self) -> None:
        """Clear the gradients after the last micro-batch, without an update."""

    @property
    def can_retry_step(self) -> bool:
        """Whether a step can be repeated, after `discard`, if its pass raised an exception."""

    @property
    def gathers_weights(self) -> bool:
        """Whether a forward pass gathers weights from other ranks."""

    def resize(self, micro_batch: int, accumulation: int) -> None:
        """Expect `accumulation` micro-batches of `micro_batch` samples from the next step on.

        Between two steps only; the same on every rank.
        """

    def state(self) -> State:
        """Weights, slots, buffers and groups; slots that do not exist yet are created as zeros."""

    def load(self, steps: Numbers, loss_scale: Numbers) -> None:
        """Load the counts of another state, after its pieces and buffers were written.

        `steps` and `loss_scale` are as in State, of all parameters; an engine without loss scaling
        ignores the latter, an empty one changes nothing. Updates the working weights. Raises
        EngineError on every rank if this engine cannot represent `steps`.
        """

    def refresh(self) -> None:
        """Update the working weights after the weight pieces were written."""

    def close(self) -> None:
        """Release the resources of the engine."""
