"""The state of a model by parameter name."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable, Mapping, Sequence
from inspect import unwrap
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Module, Parameter
from torch.optim import SGD, Adafactor, Adam, Optimizer

from gearshift.engines.base import (
    FACTORS,
    EngineError,
    HasSlots,
    MakesSlots,
    Numbers,
    Piece,
    SharesWork,
    State,
    World,
    kind_shape,
)

WEIGHT = "weight"
SLOTS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "variance", *FACTORS)

IntervalOf = Callable[[Tensor], tuple[int, Tensor]]
"""Returns the interval of a tensor that this rank holds: its start, and a flat view."""


DEFERRED = "_gearshift_deferred"
"""The attribute of a parameter whose values come later, from `deferred_init.write`."""


def is_deferred(tensor: Tensor) -> bool:
    """Whether `tensor` is a parameter whose values `deferred_init.write` will write."""
    return hasattr(tensor, DEFERRED)


def full_interval(tensor: Tensor) -> tuple[int, Tensor]:
    """The interval of a tensor that this rank holds completely."""
    if not tensor.is_contiguous():  # a forward pass gave it other memory
        tensor.data = tensor.detach().contiguous()
    return 0, tensor.detach().view(-1)


def slot_names(
    optimizer: Optimizer, group: Mapping[str, Any], parameter: Tensor
) -> tuple[str, ...]:
    """The state tensors that `optimizer` keeps for `parameter` of `group`.

    Raises EngineError for an unknown class of optimizer.
    """
    if isinstance(optimizer, Adam):
        number = 3 if group["amsgrad"] else 2
        return SLOTS[:number]
    if isinstance(optimizer, SGD):
        return ("momentum_buffer",) if group["momentum"] else ()
    if isinstance(optimizer, Adafactor):
        return tuple(FACTORS) if parameter.dim() > 1 else ("variance",)
    if isinstance(optimizer, HasSlots):
        return optimizer.slots(group)
    raise EngineError(
        f"unknown optimizer {type(optimizer).__name__}; allowed: AdamW, Adam, SGD, Adafactor, "
        "Muon, or a class with a method slots(group), which names its state tensors"
    )


def _begin(optimizer: Optimizer, *_: Any) -> None:
    """Let an optimizer with `slots` make the state of a parameter at its own first step.

    It makes nothing where it finds a state, as the one of `fill_slots`: then what `slots` does not
    name, such as a count, would be missing.
    """
    fresh = _fresh(optimizer)
    for parameter in [p for p in fresh if p.grad is not None]:
        fresh.discard(parameter)
        optimizer.state.pop(parameter)


class _Initial(UserDict[str, Any]):
    """A state that remembers the first value of each key."""

    def __init__(self) -> None:
        super().__init__()
        self.first: dict[str, Any] = {}

    def __setitem__(self, key: str, value: Any) -> None:
        self.first.setdefault(key, value.clone() if isinstance(value, Tensor) else value)
        super().__setitem__(key, value)


def _initial_state(
    optimizer: Optimizer, group: Mapping[str, Any], parameter: Tensor
) -> dict[str, Any]:
    """The state that `optimizer` makes for `parameter`, from a step of one element of zero."""
    element = torch.zeros((1,) * parameter.dim(), dtype=parameter.dtype, device=parameter.device)
    element.grad = torch.zeros_like(element)
    groups = optimizer.param_groups
    optimizer.param_groups = [{**group, "params": [element]}]
    initial = _Initial()
    optimizer.state[element] = initial
    try:
        with torch.no_grad():
            unwrap(type(optimizer).step)(optimizer)  # without hooks
    finally:
        optimizer.param_groups = groups
        del optimizer.state[element]
    state = initial.first
    for key, value in state.items():
        if isinstance(value, Tensor) and value.shape == element.shape:
            state[key] = torch.full_like(parameter, value.item(), dtype=value.dtype)
    return state


def fill_slots(optimizer: Optimizer) -> None:
    """Create the state that `optimizer` would create at its first step, as zeros.

    Where its first step depends on more than zeros, it makes its state itself then.
    """
    makes_own = _makes_own_state(optimizer)
    if makes_own and not hasattr(optimizer, "_fresh"):
        optimizer._fresh = set()  # type: ignore[attr-defined]
        optimizer.register_step_pre_hook(_begin)
    new_slot = _zeros
    if isinstance(optimizer, MakesSlots):
        new_slot = optimizer.new_slot
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state[parameter]
            names = slot_names(optimizer, group, parameter)
            if names and not state and makes_own:
                _fresh(optimizer).add(parameter)
            for name in names:
                if state.get(name) is None:
                    state[name] = new_slot(name, parameter)
            counts = isinstance(optimizer, Adafactor) or "exp_avg" in names
            if counts and not makes_own and "step" not in state:
                on_device = group.get("capturable") or group.get("fused")
                device = parameter.device if on_device else None
                state["step"] = torch.zeros((), dtype=torch.float32, device=device)


def _makes_own_state(optimizer: Optimizer) -> bool:
    """Whether the first step of `optimizer` must find no state; that of Muon finds zeros."""
    known = isinstance(optimizer, (Adam, SGD, Adafactor, SharesWork))
    return dampens(optimizer) or (isinstance(optimizer, HasSlots) and not known)


def dampens(optimizer: Optimizer) -> bool:
    """Whether the first momentum of a parameter is its gradient, and not a part of it."""
    groups = optimizer.param_groups
    return isinstance(optimizer, SGD) and any(g["momentum"] and g["dampening"] for g in groups)


def _fresh(optimizer: Optimizer) -> set[Parameter]:
    """The parameters of an optimizer with `slots` that have neither stepped nor got a state."""
    return getattr(optimizer, "_fresh", set())


def _zeros(kind: str, parameter: Parameter) -> Tensor:
    slot = kind_shape(kind, parameter.shape)
    if slot == parameter.shape:
        return torch.zeros_like(parameter)
    return parameter.detach().new_zeros(slot)


def stored(tensor: Tensor) -> list[Tensor]:
    """The tensors in the memory of this rank that hold `tensor`, such as a shard."""
    flatten = getattr(tensor, "__tensor_flatten__", None)
    if flatten is None:
        return [tensor]
    parts = []
    for name in flatten()[0]:
        inner = getattr(tensor, name)
        if isinstance(inner, Tensor):  # no mesh, which a DTensor has, too
            parts.extend(stored(inner))
    return parts


def load_steps(optimizer: Optimizer, named: Mapping[str, Parameter], steps: Numbers) -> None:
    """Set the step count of each parameter in `optimizer`. Raises KeyError if one is missing."""
    fill_slots(optimizer)
    names = {parameter: name for name, parameter in named.items()}
    fresh = _fresh(optimizer)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state[parameter]
            if parameter in fresh and steps[names[parameter]]:
                fresh.discard(parameter)
                state = {**_initial_state(optimizer, group, parameter), **state}
                optimizer.state[parameter] = state
            if "step" in state:
                state["step"] *= 0  # a tensor, or a number
                state["step"] += steps[names[parameter]]


def gather_state(
    model: Module,
    shapes: Mapping[str, tuple[int, ...]],
    named: Mapping[str, Parameter],
    optimizer: Optimizer,
    groups: Sequence[Mapping[str, Any]],
    loss_scale: Numbers,
    interval_of: IntervalOf = full_interval,
    *,
    weight_replica: tuple[int, int],
    slot_replica: tuple[int, int],
) -> State:
    """The state of the `named` parameters of `model` on this rank.

    `optimizer` has the slots of this rank; `groups` are the groups of all parameters.
    """
    fill_slots(optimizer)
    names = {parameter: name for name, parameter in named.items()}
    pieces = []
    for name, parameter in named.items():
        start, values = interval_of(parameter)
        source = parameter if interval_of is full_interval else None
        pieces.append(Piece(WEIGHT, name, start, values, weight_replica, source))
    counts: dict[str, Tensor | float] = {}
    fresh = _fresh(optimizer)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name = names[parameter]
            state = optimizer.state[parameter]
            start, _ = interval_of(parameter)
            for slot in slot_names(optimizer, group, parameter):
                _, values = interval_of(state[slot])
                pieces.append(Piece(slot, name, start, values, slot_replica))
            if "step" in state:
                counts[name] = state["step"]
            elif _makes_own_state(optimizer):
                counts[name] = float(parameter not in fresh)  # whether it has taken any
    return State(
        shapes=shapes,
        pieces=pieces,
        buffers=read_buffers(stored_buffers(model)),
        steps=read_counts(counts),
        groups=[with_names(g, [names[p] for p in g["params"]]) for g in groups],
        loss_scale=loss_scale,
    )


def with_names(group: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The options of an optimizer's `group`, with the `names` of its parameters instead of them."""
    options = {**group, "names": names}
    del options["params"]
    return options


def read_counts(counts: Mapping[str, Tensor | float]) -> dict[str, float]:
    """The `counts` as numbers; those on one device are read at once, as each read waits for it."""
    numbers = dict.fromkeys(counts, 0.0)
    by_device: dict[tuple[torch.device, torch.dtype], dict[str, Tensor]] = {}
    for name, count in counts.items():
        if isinstance(count, Tensor):
            by_device.setdefault((count.device, count.dtype), {})[name] = count.reshape(())
        else:
            numbers[name] = float(count)
    for tensors in by_device.values():
        values = torch.stack(list(tensors.values())).tolist()
        numbers.update(zip(tensors, map(float, values), strict=True))
    return numbers


def shapes_of(model: Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


BufferOwner = tuple[Module, str]
"""The module of a buffer, and its name there; the tensor itself may be replaced."""


def stored_buffers(model: Module) -> dict[str, BufferOwner]:
    """The owners of the persistent buffers of `model`, by full name.

    Other buffers (persistent=False: tables, masks) are constants.
    """
    owners = {}
    for prefix, module in model.named_modules():
        for name, _ in module.named_buffers(recurse=False):
            if name not in module._non_persistent_buffers_set:
                owners[f"{prefix}.{name}".lstrip(".")] = (module, name)
    return owners


def read_buffers(owners: Mapping[str, BufferOwner]) -> dict[str, Tensor]:
    """The tensors of `owners`."""
    return {full: getattr(module, name) for full, (module, name) in owners.items()}


def broadcast_buffers(owners: Mapping[str, BufferOwner], world: World) -> None:
    """Broadcast the buffers of rank 0 after an update. Collective.

    So evaluation is the same on every rank, under every engine. Those of frozen parts, which are
    in evaluation mode, do not change.
    """
    if world.size == 1:
        return
    changing = [getattr(module, name) for module, name in owners.values() if module.training]
    # The widest first: so each is aligned to its width.
    buffers = sorted(changing, key=lambda buffer: -buffer.itemsize)
    if not buffers:
        return
    together = torch.cat([_bytes(buffer) for buffer in buffers])
    dist.broadcast(together, 0)
    parts = together.split([buffer.nbytes for buffer in buffers])
    for buffer, part in zip(buffers, parts, strict=True):
        buffer.copy_(part.view(buffer.dtype).view(buffer.shape))


def broadcast(tensor: Tensor) -> None:
    """Write the values of rank 0 into `tensor`, of any dtype and layout. Collective."""
    values = _bytes(tensor)
    dist.broadcast(values, 0)
    if tensor.is_conj() or not tensor.is_contiguous():  # else they are a view
        tensor.copy_(values.view(tensor.dtype).view(tensor.shape))


def _bytes(tensor: Tensor) -> Tensor:
    """The bytes of `tensor`, a view if it is contiguous: gloo and NCCL do not send all dtypes."""
    return tensor.detach().resolve_conj().contiguous().view(-1).view(torch.uint8)
