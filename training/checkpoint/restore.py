"""Restores a checkpoint into an engine, written by any engine on any number of ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from engines.base import LR_FACTOR, PART
from training.agreement import first_error
from training.checkpoint.manifest import CheckpointError
from training.checkpoint.tensor_file import BUFFER, EMA, WEIGHT

if TYPE_CHECKING:
    from engines.base import Engine, Piece, State, World
    from training.checkpoint.reader import Checkpoint

_CHUNK_BYTES = 16 * 2**20
_MAX_ERRORS = 8


def restore(checkpoint: Checkpoint, engine: Engine, slots: bool = True) -> None:
    """Load a verified `checkpoint` into `engine`. Collective; touches disk.

    Each rank reads the parts that it holds. Parameter groups keep the options that the engine was
    built with, except the learning rate. Without `slots`, only weights and buffers are restored.
    Raises CheckpointError if the model differs, before anything is changed, and EngineError if the
    engine cannot hold the step counts; both on every rank.
    """
    state = engine.state()

    def fill_state() -> None:
        fill(checkpoint, [piece for piece in state.pieces if slots or piece.kind == WEIGHT])
        for name, buffer in state.buffers.items():
            buffer.copy_(checkpoint.buffer(name))

    _together(engine.world, lambda: check(checkpoint, state, slots))
    _together(engine.world, fill_state)
    if not slots:
        engine.refresh()
        return
    stored = {name: group["lr"] for group in checkpoint.groups for name in group["names"]}
    for group, named in zip(engine.groups, state.groups, strict=True):
        group["lr"] = stored[named["names"][0]]
    engine.load(checkpoint.steps, checkpoint.loss_scale)


def restore_average(checkpoint: Checkpoint, engine: Engine) -> None:
    """Load the moving average of `checkpoint`, if it has one, instead of the weights. Collective.

    Touches disk. Raises CheckpointError on every rank.
    """
    if EMA not in checkpoint.kinds:
        return
    averaged = set(checkpoint.names(EMA))
    weights = (piece for piece in engine.state().pieces if piece.kind == WEIGHT)
    pieces = [replace(piece, kind=EMA) for piece in weights if piece.name in averaged]
    _together(engine.world, lambda: fill(checkpoint, pieces))
    engine.refresh()


def check(checkpoint: Checkpoint, state: State, slots: bool = True) -> None:
    """Check that `checkpoint` fits `state`. Raises CheckpointError with all differences by name.

    Compares names and shapes of parameters and buffers, and with `slots` the kinds of slots and the
    members of parameter groups. A rank checks the slots that it holds.
    """
    errors = [
        *_differing("parameter", checkpoint.shapes, state.shapes),
        *_differing(
            "buffer",
            checkpoint.buffer_shapes,
            {name: tuple(buffer.shape) for name, buffer in state.buffers.items()},
        ),
        *_rounded(checkpoint, state),
    ]
    if slots and not errors:
        differences = [*_other_slots(checkpoint, state), *_other_groups(checkpoint, state)]
        errors = [f"{error}; fix: --reset optimizer" for error in differences]
    if errors:
        if (more := len(errors) - _MAX_ERRORS) > 0:
            errors[_MAX_ERRORS:] = [f"and {more} more"]
        raise CheckpointError("\n  ".join([f"{checkpoint.folder} does not fit the model:", *errors]))


def fill(checkpoint: Checkpoint, pieces: Sequence[Piece]) -> None:
    """Read `pieces` of any kind from `checkpoint` into their data, in bounded chunks.

    Raises KeyError for a tensor that the checkpoint does not have. Touches disk.
    """
    for piece in pieces:
        flat, stored = piece.data.detach(), checkpoint.dtype(piece.kind, piece.name)
        is_plain = type(flat) is Tensor and flat.dtype == stored
        if is_plain and flat.device.type == "cpu" and flat.is_contiguous():
            # From the file into the tensor, without a copy.
            checkpoint.read(piece.kind, piece.name, piece.start, flat)
            continue
        length = _CHUNK_BYTES // stored.itemsize
        for first in range(0, flat.numel(), length):
            chunk = flat[first : first + length]
            start = piece.start + first
            chunk.copy_(checkpoint.interval(piece.kind, piece.name, start, start + chunk.numel()))


def _differing(
    what: str, stored: Mapping[str, tuple[int, ...]], ours: Mapping[str, tuple[int, ...]]
) -> Iterator[str]:
    """Tensors that one side lacks or has in another shape."""
    for name in ours:
        if name not in stored:
            yield f"{what} '{name}' {list(ours[name])} is not in the checkpoint"
        elif stored[name] != ours[name]:
            yield (
                f"{what} '{name}' is {list(stored[name])} in the checkpoint"
                f" and {list(ours[name])} in the model"
            )
    for name in stored:
        if name not in ours:
            yield f"{what} '{name}' {list(stored[name])} is not in the model"


def _rounded(checkpoint: Checkpoint, state: State) -> Iterator[str]:
    """Buffers of another dtype, which a copy would round."""
    for name, buffer in state.buffers.items():
        if buffer.numel() and checkpoint.buffer_shapes.get(name) == tuple(buffer.shape):
            stored = checkpoint.interval(BUFFER, name, 0, 1).dtype
            if stored != buffer.dtype:
                yield (f"buffer '{name}' is {stored} in the checkpoint and {buffer.dtype} in the model")


def _other_slots(checkpoint: Checkpoint, state: State) -> Iterator[str]:
    """Parameters with other optimizer slots, among those whose slots this rank holds."""
    stored = {kind: set(checkpoint.names(kind)) for kind in checkpoint.kinds if kind != EMA}
    held: dict[str, set[str]] = {}
    for piece in state.pieces:
        held.setdefault(piece.name, set()).add(piece.kind)
    for name, kinds in held.items():
        if kinds == {WEIGHT}:
            continue
        known = {kind for kind, names in stored.items() if name in names}
        # Not every engine has slots of empty tensors.
        if kinds != known and 0 not in state.shapes[name]:
            theirs, ours = (", ".join(sorted(k - {WEIGHT})) or "nothing" for k in (known, kinds))
            yield f"the optimizer has {theirs} of '{name}' in the checkpoint and {ours} in this run"
        elif name in state.steps and name not in checkpoint.steps:
            yield f"the checkpoint does not say how often '{name}' was updated"


def _other_groups(checkpoint: Checkpoint, state: State) -> Iterator[str]:
    stored, ours = map(_group_of_each, (checkpoint.groups, state.groups))
    for name in {**ours, **stored}:
        theirs, here = stored.get(name, "frozen"), ours.get(name, "frozen")
        if theirs != here:
            yield f"'{name}' is {theirs} in the checkpoint and {here} in this run"


def _group_of_each(groups: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The group of each parameter; groups that differ in their learning rate only are one."""
    kinds: list[dict[str, Any]] = []
    group_of: dict[str, str] = {}
    for group in groups:
        kind = {k: v for k, v in group.items() if k not in ("names", "lr", LR_FACTOR, PART)}
        if kind not in kinds:
            kinds.append(kind)
        place = f"in parameter group {kinds.index(kind)}"
        group_of |= dict.fromkeys(group["names"], place)
    return group_of


def _together(world: World, action: Callable[[], None]) -> None:
    """Run `action` on every rank; if it fails on one, all raise CheckpointError."""
    error: Exception | None = None
    try:
        action()
    except (CheckpointError, OSError) as raised:
        error = raised
    first = first_error(world, None if error is None else str(error))
    if isinstance(error, CheckpointError):
        raise error
    if first is not None:
        raise CheckpointError(first) from error
