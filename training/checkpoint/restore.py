"""Puts a checkpoint into a running engine, whatever engine wrote it on however many ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import TYPE_CHECKING

from training.agreement import first_error
from training.checkpoint.manifest import CheckpointError
from training.checkpoint.reader import WEIGHT
from training.checkpoint.tensor_file import BUFFER
from training.optim import ema

if TYPE_CHECKING:
    from engines.base import Engine, Piece, State, World
    from training.checkpoint.reader import Checkpoint

_CHUNK_BYTES = 16 * 2**20
_MOST_NAMED = 8


def restore(checkpoint: Checkpoint, engine: Engine, slots: bool = True) -> None:
    """Give `engine` the state in `checkpoint`, whose checksums are right. Collective; reads disk.

    Each rank reads what it holds. Options of the parameter groups stay those that the engine was
    built with, but for the learning rate. Without `slots` the optimizer begins anew: only weights
    and buffers are taken. Raises CheckpointError where the model is another one, before anything
    is written, and EngineError where this engine cannot hold the counts; both on every rank.
    """
    state = engine.state()
    _together(engine.world, lambda: check(checkpoint, state, slots))
    _together(engine.world, lambda: _fill_state(checkpoint, state, slots))
    if not slots:
        engine.refresh()
        return
    for group, stored in zip(engine.groups, checkpoint.groups, strict=True):
        group["lr"] = stored["lr"]
    engine.load(checkpoint.steps, checkpoint.loss_scale)


def check(checkpoint: Checkpoint, state: State, slots: bool = True) -> None:
    """Raises CheckpointError that lists by name what of `checkpoint` does not fit `state`.

    Names and shapes of parameters and buffers, and with `slots` the kinds of slots and the members
    of parameter groups. Of slots a rank sees those that it holds.
    """
    faults = [
        *_differing("parameter", checkpoint.shapes, state.shapes),
        *_differing("buffer", checkpoint.buffer_shapes, _shapes(state)),
        *_rounded(checkpoint, state),
    ]
    if slots and not faults:
        found = [*_other_slots(checkpoint, state), *_other_groups(checkpoint, state)]
        faults = [f"{fault}; a new optimizer fits:  --reset optimizer" for fault in found]
    if faults:
        raise CheckpointError(
            "\n  ".join([f"{checkpoint.folder} is of another model:", *_shortened(faults)])
        )


def fill(checkpoint: Checkpoint, pieces: Sequence[Piece]) -> None:
    """Read `pieces` of any kind from `checkpoint` into their data, a bounded chunk at a time.

    Raises KeyError where the checkpoint has no tensor of the kind and name. Touches disk.
    """
    for piece in pieces:
        flat, stored = piece.data.detach(), checkpoint.dtype(piece.kind, piece.name)
        if flat.device.type == "cpu" and flat.dtype == stored and flat.is_contiguous():
            # From the file to where it belongs, without a copy in between.
            checkpoint.read(piece.kind, piece.name, piece.start, flat)
            continue
        length = _CHUNK_BYTES // stored.itemsize
        for first in range(0, flat.numel(), length):
            chunk = flat[first : first + length]
            start = piece.start + first
            chunk.copy_(checkpoint.interval(piece.kind, piece.name, start, start + chunk.numel()))


def _fill_state(checkpoint: Checkpoint, state: State, slots: bool) -> None:
    fill(checkpoint, [piece for piece in state.pieces if slots or piece.kind == WEIGHT])
    for name, buffer in state.buffers.items():
        buffer.copy_(checkpoint.buffer(name))


def _differing(
    what: str, stored: Mapping[str, tuple[int, ...]], ours: Mapping[str, tuple[int, ...]]
) -> Iterator[str]:
    """What is there on one side only, or in another shape."""
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


def _shapes(state: State) -> dict[str, tuple[int, ...]]:
    return {name: tuple(buffer.shape) for name, buffer in state.buffers.items()}


def _rounded(checkpoint: Checkpoint, state: State) -> Iterator[str]:
    """Buffers of another dtype: copying would round them."""
    for name, buffer in state.buffers.items():
        if buffer.numel() and checkpoint.buffer_shapes.get(name) == tuple(buffer.shape):
            stored = checkpoint.interval(BUFFER, name, 0, 1).dtype
            if stored != buffer.dtype:
                yield (
                    f"buffer '{name}' is {stored} in the checkpoint and {buffer.dtype} in the model"
                )


def _other_slots(checkpoint: Checkpoint, state: State) -> Iterator[str]:
    """Parameters whose optimizer keeps other slots than it did; of those whose slots are here."""
    stored = {kind: set(checkpoint.names(kind)) for kind in checkpoint.kinds if kind != ema.KIND}
    held: dict[str, set[str]] = {}
    for piece in state.pieces:
        held.setdefault(piece.name, set()).add(piece.kind)
    for name, kinds in held.items():
        if kinds == {WEIGHT}:
            continue
        known = {kind for kind, names in stored.items() if name in names}
        # Of a tensor without elements not every engine has slots.
        if kinds != known and 0 not in state.shapes[name]:
            yield (
                f"the optimizer keeps {_listed(known)} of '{name}' in the checkpoint"
                f" and {_listed(kinds)} in this run"
            )
        elif name in state.steps and name not in checkpoint.steps:
            yield f"the checkpoint does not say how often '{name}' was updated"


def _other_groups(checkpoint: Checkpoint, state: State) -> Iterator[str]:
    """Parameters that are in another group than they were."""
    stored, ours = _group_numbers(checkpoint.groups), _group_numbers(state.groups)
    for name in {**ours, **stored}:
        if stored.get(name) != ours.get(name):
            yield (
                f"'{name}' is {_place(stored.get(name))} in the checkpoint"
                f" and {_place(ours.get(name))} in this run"
            )


def _group_numbers(groups: Sequence[Mapping]) -> dict[str, int]:
    return {name: number for number, group in enumerate(groups) for name in group["names"]}


def _place(group: int | None) -> str:
    return "frozen" if group is None else f"in parameter group {group}"


def _listed(kinds: Set[str]) -> str:
    return ", ".join(sorted(kinds - {WEIGHT})) or "nothing"


def _shortened(faults: Sequence[str]) -> list[str]:
    more = len(faults) - _MOST_NAMED
    return [*faults[:_MOST_NAMED], *([f"and {more} more"] if more > 0 else [])]


def _together(world: World, action: Callable[[], None]) -> None:
    """Run `action` on every rank; when it failed on one, all raise CheckpointError."""
    fault: Exception | None = None
    try:
        action()
    except (CheckpointError, OSError) as raised:
        fault = raised
    told = first_error(world, None if fault is None else str(fault))
    if isinstance(fault, CheckpointError):
        raise fault
    if told is not None:
        raise CheckpointError(told) from fault
