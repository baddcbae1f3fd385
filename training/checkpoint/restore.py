"""Restores a checkpoint into an engine, written by any engine on any number of ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from engines.base import LR_FACTOR, PART
from training.agreement import attempt
from training.callbacks.base import Facts
from training.checkpoint.manifest import CheckpointError
from training.checkpoint.tensor_file import BUFFER, EMA, WEIGHT

if TYPE_CHECKING:
    from engines.base import Engine, Piece, State, World
    from training.checkpoint.reader import Checkpoint

_AT_ONCE = 2**20  # Elements that are read together: 4 MiB of fp32
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
        fill(checkpoint, (piece for piece in state.pieces if slots or piece.kind == WEIGHT))
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
    averaged = set(checkpoint.names(EMA))
    if not averaged:
        return
    weights = (piece for piece in engine.state().pieces if piece.kind == WEIGHT)
    pieces = [replace(piece, kind=EMA) for piece in weights if piece.name in averaged]
    _together(engine.world, lambda: fill(checkpoint, pieces))
    engine.refresh()


def check(checkpoint: Checkpoint, state: State, slots: bool = True) -> None:
    """Check that `checkpoint` fits `state`. Raises CheckpointError with the differences by name.

    Compares names and shapes of parameters and buffers, and with `slots` the kinds of slots and the
    members of parameter groups. A rank checks the slots that it holds.
    """
    forms = {n: (s, checkpoint.dtype(BUFFER, n)) for n, s in checkpoint.buffer_shapes.items()}
    # With their dtype: a copy would round them.
    buffers = {name: (tuple(buffer.shape), buffer.dtype) for name, buffer in state.buffers.items()}
    errors = _differing("parameter", checkpoint.shapes, state.shapes) + _differing("buffer", forms, buffers)
    if slots and not errors:
        groups = (_group_of_each(groups) for groups in (checkpoint.groups, state.groups))
        errors = _differing("optimizer state of", *_slots(checkpoint, state))
        errors = [f"{error}; fix: --reset optimizer" for error in errors + _differing("group of", *groups)]
    if errors:
        if (more := len(errors) - _MAX_ERRORS) > 0:
            errors[_MAX_ERRORS:] = [f"and {more} more"]
        raise CheckpointError("\n  ".join([f"{checkpoint.folder} does not fit the model:", *errors]))


def fill(checkpoint: Checkpoint, pieces: Iterable[Piece]) -> None:
    """Read `pieces` of any kind from `checkpoint` into their data, in bounded chunks.

    Raises KeyError for a tensor that the checkpoint does not have. Touches disk.
    """
    for piece in pieces:
        flat = piece.data.detach()
        for first in range(0, flat.numel(), _AT_ONCE):
            chunk, start = flat[first : first + _AT_ONCE], piece.start + first
            chunk.copy_(checkpoint.interval(piece.kind, piece.name, start, start + chunk.numel()))


def _differing(what: str, stored: Facts, ours: Facts) -> list[str]:
    sides = ((name, *(side.get(name, "nothing") for side in (stored, ours))) for name in {**ours, **stored})
    return [f"{what} '{n}' is {a} in the checkpoint and {b} in the model" for n, a, b in sides if a != b]


def _slots(checkpoint: Checkpoint, state: State) -> list[dict[str, list[str]]]:
    """The optimizer slots, and the count of steps, of parameters whose slots this rank holds."""
    held: dict[str, set[str]] = {}
    for piece in state.pieces:
        if piece.kind != WEIGHT and 0 not in state.shapes[piece.name]:  # not every engine has those
            held.setdefault(piece.name, set()).add(piece.kind)
    stored: dict[str, set[str]] = {name: set() for name in held}
    for kind in set(checkpoint.kinds) - {EMA, WEIGHT}:
        for name in held.keys() & checkpoint.names(kind):
            stored[name].add(kind)
    for name in held.keys() & state.steps.keys() - checkpoint.steps.keys():
        held[name].add("steps")
    return [{name: sorted(kinds) for name, kinds in side.items()} for side in (stored, held)]


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
