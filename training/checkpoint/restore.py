"""Restores a checkpoint into an engine, written by any engine on any number of ranks."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from gearshift.engines.base import Piece
from gearshift.training.callbacks.base import Facts
from gearshift.training.checkpoint.manifest import CheckpointError
from gearshift.training.checkpoint.resume_point import on_all_ranks
from gearshift.training.checkpoint.tensor_file import BUFFER, EMA, WEIGHT

if TYPE_CHECKING:
    from gearshift.engines.base import Engine, State
    from gearshift.training.checkpoint.reader import Checkpoint

_MAX_ERRORS = 8


def restore(
    checkpoint: Checkpoint,
    engine: Engine,
    slots: bool = True,
    kind: str = WEIGHT,
) -> None:
    """Load `checkpoint` into `engine`. Collective; touches disk.

    Each rank reads the parts that it holds, and checks them.
    Parameter groups keep the options that the engine was built with, except the learning rate.
    Without `slots`, only weights and buffers are restored; with another `kind`, such as "ema",
    those of that kind replace weights where there are some. Raises CheckpointError if the model
    differs, before anything is changed; CheckpointDamaged for a wrong checksum, after which the
    engine is of no use; and EngineError if the engine cannot hold the step counts; all on every
    rank.
    """
    state = engine.state()
    world = engine.world
    on_all_ranks(world, lambda: check(checkpoint, state, slots))
    used_kinds = checkpoint.used_kind(kind)
    pieces = []
    for piece in state.pieces:
        if piece.kind == WEIGHT:
            pieces.append(replace(piece, kind=used_kinds[piece.name]))
        elif slots:
            pieces.append(piece)
    for name, buffer in state.buffers.items():
        pieces.append(Piece(BUFFER, name, 0, buffer.reshape(-1)))

    def fill_state() -> None:
        checkpoint.fill(pieces)
        for name, buffer in state.buffers.items():
            buffer.copy_(checkpoint.tensor(BUFFER, name))

    on_all_ranks(world, fill_state)
    if not slots:
        engine.refresh()
        return
    rates: dict[str, float] = {}
    for group in checkpoint.groups:
        rates |= dict.fromkeys(group["names"], group["lr"])
    for group, named in zip(engine.groups, state.groups, strict=True):
        group["lr"] = rates.get(named["names"][0], group["lr"])
    engine.load(checkpoint.steps, checkpoint.loss_scale)


def check(checkpoint: Checkpoint, state: State, slots: bool = True) -> None:
    """Check that `checkpoint` fits `state`. Raises CheckpointError with the differences by name.

    Compares names and shapes of parameters and buffers, and with `slots` the kinds of slots. A rank
    checks the slots that it holds.
    """
    # Buffers with their dtype: a copy would round them.
    stored = {}
    for name, shape in checkpoint.buffer_shapes.items():
        stored[name] = shape, checkpoint.dtype(BUFFER, name)
    buffers = {}
    for name, buffer in state.buffers.items():
        buffers[name] = tuple(buffer.shape), buffer.dtype
    errors = _differing("parameter", checkpoint.shapes, state.shapes)
    errors += _differing("buffer", stored, buffers)
    if slots and not errors:
        errors = _differing_slots(checkpoint, state)
    if not errors:
        return
    head = f"{checkpoint.folder} does not fit the model, by {len(errors)} differences:"
    raise CheckpointError("\n  ".join([head, *errors[:_MAX_ERRORS]]))


def _differing(what: str, stored: Facts, present: Facts) -> list[str]:
    texts = []
    for name in {**present, **stored}:
        before = stored.get(name, "nothing")
        now = present.get(name, "nothing")
        if before != now:
            texts.append(f"{what} '{name}' is {before} in the checkpoint and {now} in the model")
    return texts


def _differing_slots(checkpoint: Checkpoint, state: State) -> list[str]:
    """Of the parameters whose slots this rank holds: slots and counts of steps."""
    present = set()
    for piece in state.pieces:
        # Not every engine has slots of a parameter without elements.
        if piece.kind != WEIGHT and 0 not in state.shapes[piece.name]:
            present.add((piece.name, piece.kind))
    names = {name for name, _ in present}
    present |= {(name, "steps") for name in names & state.steps.keys()}
    stored = {(name, "steps") for name in names & checkpoint.steps.keys() & state.steps.keys()}
    for kind in {*checkpoint.kinds} - {EMA, WEIGHT}:
        stored |= {(name, kind) for name in names & {*checkpoint.names(kind)}}
    texts = []
    for name, kind in sorted(present ^ stored):
        place = "checkpoint" if (name, kind) in stored else "model"
        texts.append(f"only the {place} has {kind} of '{name}'; fix: --reset optimizer")
    return texts
