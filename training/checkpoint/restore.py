"""Restores a checkpoint into an engine, written by any engine on any number of ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from training.agreement import attempt
from training.callbacks.base import Facts
from training.checkpoint.manifest import CheckpointError
from training.checkpoint.tensor_file import BUFFER, EMA, WEIGHT

if TYPE_CHECKING:
    from engines.base import Engine, Piece, State, World
    from training.checkpoint.reader import Checkpoint

_AT_ONCE = 2**20  # Elements that are read together: 4 MiB of fp32
_MAX_ERRORS = 8


def restore(checkpoint: Checkpoint, engine: Engine, slots: bool = True, kind: str = WEIGHT) -> None:
    """Load a verified `checkpoint` into `engine`. Collective; touches disk.

    Each rank reads the parts that it holds. Parameter groups keep the options that the engine was
    built with, except the learning rate. Without `slots`, only weights and buffers are restored;
    with another `kind`, such as "ema", those of that kind replace weights where there are some.
    Raises CheckpointError if the model differs, before anything is changed, and EngineError if the
    engine cannot hold the step counts; both on every rank.
    """
    state, kinds = engine.state(), checkpoint.used_kind(kind)

    def fill_state() -> None:
        weights = [replace(p, kind=kinds[p.name]) for p in state.pieces if p.kind == WEIGHT]
        fill(checkpoint, [*weights, *(p for p in state.pieces if slots and p.kind != WEIGHT)])
        for name, buffer in state.buffers.items():
            buffer.copy_(checkpoint.tensor(BUFFER, name))

    _together(engine.world, lambda: check(checkpoint, state, slots))
    _together(engine.world, fill_state)
    if not slots:
        engine.refresh()
        return
    stored = {name: group["lr"] for group in checkpoint.groups for name in group["names"]}
    for group, named in zip(engine.groups, state.groups, strict=True):
        group["lr"] = stored.get(named["names"][0], group["lr"])
    engine.load(checkpoint.steps, checkpoint.loss_scale)


def check(checkpoint: Checkpoint, state: State, slots: bool = True) -> None:
    """Check that `checkpoint` fits `state`. Raises CheckpointError with the differences by name.

    Compares names and shapes of parameters and buffers, and with `slots` the kinds of slots. A rank
    checks the slots that it holds.
    """
    forms = {n: (s, checkpoint.dtype(BUFFER, n)) for n, s in checkpoint.buffer_shapes.items()}
    # With their dtype: a copy would round them.
    buffers = {name: (tuple(buffer.shape), buffer.dtype) for name, buffer in state.buffers.items()}
    errors = _differing("parameter", checkpoint.shapes, state.shapes) + _differing("buffer", forms, buffers)
    if slots and not errors:
        differing = _differing("optimizer state of", *_slots(checkpoint, state))
        errors = [f"{error}; fix: --reset optimizer" for error in differing]
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


def _together(world: World, action: Callable[[], None]) -> None:
    """Run `action` on every rank; if it fails on one, all raise CheckpointError."""
    _, error = attempt(world, action, CheckpointError, OSError)
    if error is not None:
        raise CheckpointError(error)
