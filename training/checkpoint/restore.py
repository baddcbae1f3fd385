"""Restores a checkpoint into an engine, written by any engine on any number of ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from engines.base import LR_FACTOR, PART
from training.agreement import attempt
from training.callbacks.base import Facts
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
            buffer.copy_(checkpoint.tensor(BUFFER, name))

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
    """Check that `checkpoint` fits `state`. Raises CheckpointError with the differences by name.

    Compares names and shapes of parameters and buffers, and with `slots` the kinds of slots and the
    members of parameter groups. A rank checks the slots that it holds.
    """
    buffers = {name: tuple(buffer.shape) for name, buffer in state.buffers.items()}
    errors = [
        *_differing("parameter", checkpoint.shapes, state.shapes),
        *_differing("buffer", checkpoint.buffer_shapes, buffers),
    ]
    if not errors:
        stored = {name: checkpoint.dtype(BUFFER, name) for name in buffers}
        ours = {name: buffer.dtype for name, buffer in state.buffers.items()}
        errors = [*_differing("buffer", stored, ours)]  # a copy would round it
    if slots and not errors:
        stored_slots, held = _slots(checkpoint, state)
        groups = (_group_of_each(groups) for groups in (checkpoint.groups, state.groups))
        errors = [*_differing("optimizer state of", stored_slots, held), *_differing("group of", *groups)]
        errors = [f"{error}; fix: --reset optimizer" for error in errors]
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


def _differing(what: str, stored: Facts, ours: Facts) -> Iterator[str]:
    for name in {**ours, **stored}:
        there, here = (side.get(name, "nothing") for side in (stored, ours))
        if there != here:
            there, here = (list(value) if isinstance(value, tuple) else value for value in (there, here))
            yield f"{what} '{name}' is {there} in the checkpoint and {here} in the model"


def _slots(checkpoint: Checkpoint, state: State) -> tuple[dict[str, str], dict[str, str]]:
    """The optimizer slots, and the count of steps, of parameters whose slots this rank holds."""
    stored = {kind: set(checkpoint.names(kind)) for kind in checkpoint.kinds if kind not in (EMA, WEIGHT)}
    held: dict[str, set[str]] = {}
    for piece in state.pieces:
        if piece.kind != WEIGHT and 0 not in state.shapes[piece.name]:  # not every engine has those
            held.setdefault(piece.name, set()).add(piece.kind)
    theirs = {name: {kind for kind, names in stored.items() if name in names} for name in held}
    for kinds, steps in ((held, state.steps), (theirs, checkpoint.steps)):
        for name in held.keys() & state.steps.keys() & steps.keys():
            kinds[name].add("steps")
    first, second = (
        {name: ", ".join(sorted(kinds)) or "nothing" for name, kinds in side.items()}
        for side in (theirs, held)
    )
    return first, second


def _group_of_each(groups: Sequence[Facts]) -> dict[str, int]:
    """The group of each parameter; groups that differ in their learning rate only are one."""
    kinds: list[dict[str, Any]] = []
    group_of: dict[str, int] = {}
    for group in groups:
        kind = {k: v for k, v in group.items() if k not in ("names", "lr", LR_FACTOR, PART)}
        if kind not in kinds:
            kinds.append(kind)
        group_of |= dict.fromkeys(group["names"], kinds.index(kind))
    return group_of


def _together(world: World, action: Callable[[], None]) -> None:
    """Run `action` on every rank; if it fails on one, all raise CheckpointError."""
    _, error = attempt(world, action, CheckpointError, OSError)
    if error is not None:
        raise CheckpointError(error)
