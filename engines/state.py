"""The state of a trained model by parameter name, and the proof that nothing of it is missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Module, Parameter
from torch.optim import SGD, Adafactor, Adam, AdamW, Optimizer

from engines.base import FACTORS, EngineError, Piece, State, World, kind_shape

WEIGHT = "weight"
ADAM = (Adam, AdamW)  # AdamW is an Adam from torch 2.7 on only
SLOTS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "variance", *FACTORS)

IntervalOf = Callable[[Tensor], tuple[int, Tensor]]
"""Gives the interval of a tensor that this rank holds: its start, and a flat live view."""


def whole(tensor: Tensor) -> tuple[int, Tensor]:
    """The interval of a tensor that this rank holds all of."""
    return 0, tensor.detach().view(-1)


def slot_names(
    optimizer: Optimizer, group: Mapping[str, Any], parameter: Tensor
) -> tuple[str, ...]:
    """The tensors that `optimizer` keeps for `parameter` of `group`.

    Raises EngineError for a kind of optimizer whose state is not known.
    """
    if isinstance(optimizer, ADAM):
        return SLOTS[:3] if group["amsgrad"] else SLOTS[:2]
    if isinstance(optimizer, SGD):
        return ("momentum_buffer",) if group["momentum"] else ()
    if isinstance(optimizer, Adafactor):
        return tuple(FACTORS) if parameter.dim() > 1 else ("variance",)
    raise EngineError(
        f"the state of optimizer {type(optimizer).__name__} is not known; "
        "known: AdamW, Adam, SGD, Adafactor"
    )


def fill_slots(optimizer: Optimizer) -> None:
    """Make as zeros what `optimizer` would make at its first step; the update stays the same."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state[parameter]
            for name in slot_names(optimizer, group, parameter):
                if state.get(name) is None:
                    state[name] = _zeros(name, parameter)
            if isinstance(optimizer, (*ADAM, Adafactor)) and "step" not in state:
                on_device = group.get("capturable") or group.get("fused")
                device = parameter.device if on_device else None
                state["step"] = torch.zeros((), dtype=torch.float32, device=device)


def _zeros(kind: str, parameter: Parameter) -> Tensor:
    shape = tuple(parameter.shape)
    slot = kind_shape(kind, shape)
    return torch.zeros_like(parameter) if slot == shape else parameter.detach().new_zeros(slot)


def load_steps(
    optimizer: Optimizer, named: Mapping[str, Parameter], steps: Mapping[str, float]
) -> None:
    """Set the updates that `optimizer` counts for each of its parameters; KeyError without one."""
    fill_slots(optimizer)
    names = {parameter: name for name, parameter in named.items()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if "step" in (state := optimizer.state[parameter]):
                state["step"].fill_(steps[names[parameter]])


def gather_state(
    model: Module,
    shapes: Mapping[str, tuple[int, ...]],
    named: Mapping[str, Parameter],
    optimizer: Optimizer,
    shown: Sequence[Mapping[str, Any]],
    loss_scale: Mapping[str, float],
    interval_of: IntervalOf = whole,
    *,
    weights_replicated: bool,
    slots_replicated: bool,
) -> State:
    """The state of the `named` parameters of `model`, as this rank holds it.

    `optimizer` holds the slots of this rank; `shown` are the groups of all parameters.
    """
    fill_slots(optimizer)
    names = {parameter: name for name, parameter in named.items()}
    pieces = [
        Piece(WEIGHT, name, *interval_of(parameter), weights_replicated)
        for name, parameter in named.items()
    ]
    steps = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name, state = names[parameter], optimizer.state[parameter]
            pieces += [
                Piece(slot, name, *interval_of(state[slot]), slots_replicated)
                for slot in slot_names(optimizer, group, parameter)
            ]
            if "step" in state:
                steps[name] = float(state["step"])
    return State(
        shapes=shapes,
        pieces=pieces,
        buffers=read_buffers(stored_buffers(model)),
        steps=steps,
        groups=[_named_group(group, names) for group in shown],
        loss_scale=loss_scale,
    )


def _named_group(group: Mapping[str, Any], names: Mapping[Parameter, str]) -> dict[str, Any]:
    options = {key: value for key, value in group.items() if key != "params"}
    return {**options, "names": [names[parameter] for parameter in group["params"]]}


def shapes_of(model: Module) -> dict[str, tuple[int, ...]]:
    """The shape of each parameter; to be asked before an engine shards them."""
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def check_cover(state: State, world: World) -> None:
    """Refuse a state that does not hold each tensor exactly once over all ranks. Collective.

    What an engine knows of a library's insides is checked here at every start, so that another
    version of it cannot make a checkpoint with holes. Raises EngineError on every rank alike.
    """
    kinds = (WEIGHT, *SLOTS)
    names = list(state.shapes)
    row = {name: index for index, name in enumerate(names)}
    held = torch.zeros(len(names), len(kinds), dtype=torch.int64)
    for piece in state.pieces:
        # What every rank holds is counted once, on rank 0.
        if not piece.replicated or world.rank == 0:
            held[row[piece.name], kinds.index(piece.kind)] += piece.data.numel()
    counts = world.sum(held)
    for name, of_kinds in zip(names, counts.tolist(), strict=True):
        for kind, count in zip(kinds, of_kinds, strict=True):
            size = prod(kind_shape(kind, state.shapes[name]))
            is_whole = count == size or (count == 0 and kind != WEIGHT)
            if not is_whole:
                raise EngineError(
                    f"the engine holds {count} of the {size} elements of {kind} of '{name}'; "
                    "this version of its library is not understood, engine ddp needs none"
                )


BufferOwner = tuple[Module, str]
"""The module that holds a buffer, and its name there; the tensor itself may be replaced."""


def stored_buffers(model: Module) -> dict[str, BufferOwner]:
    """Where the buffers stand that belong to the state of `model`, by their full name.

    Buffers that a model does not store (persistent=False: tables, masks) are constants.
    """
    return {
        f"{prefix}.{name}" if prefix else name: (module, name)
        for prefix, module in model.named_modules()
        for name, _ in module.named_buffers(recurse=False)
        if name not in module._non_persistent_buffers_set
    }


def read_buffers(owners: Mapping[str, BufferOwner]) -> dict[str, Tensor]:
    """The live tensors at `owners`."""
    return {full: getattr(module, name) for full, (module, name) in owners.items()}


def follow_rank_zero(owners: Mapping[str, BufferOwner], world: World) -> None:
    """Give every rank the buffers of rank 0, as they are after an update. Collective.

    So evaluation is the same on every rank, under every engine.
    """
    if world.size == 1:
        return
    stored = list(read_buffers(owners).values())
    for dtype in dict.fromkeys(buffer.dtype for buffer in stored):
        same = [buffer for buffer in stored if buffer.dtype == dtype]
        flat = torch.cat([buffer.reshape(-1) for buffer in same])
        dist.broadcast(flat, 0)
        for buffer, value in zip(same, flat.split([b.numel() for b in same]), strict=True):
            buffer.copy_(value.view(buffer.shape))
