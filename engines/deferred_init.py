"""Deferred initialization: only rank 0 has the weights of a new model until it is sharded."""

from __future__ import annotations

import gc
from collections import defaultdict
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Module, Parameter
from torch.utils import swap_tensors

from gearshift.engines.base import Engine, World
from gearshift.engines.device import trim_heap
from gearshift.engines.parameters import gradient_hooks
from gearshift.engines.state import DEFERRED, WEIGHT, broadcast

# What a model raises that needs a value; a fault of its own is raised again with values.
_READS_VALUES = (RuntimeError, TypeError, ValueError, ArithmeticError, LookupError, AssertionError)


def build(make: Callable[[], Module], world: World) -> tuple[Module, dict[str, Tensor]]:
    """The model of `make`, and by name its parameters to `write`: rank 0 has values. Collective.

    The other ranks build it on the device "meta", so that their parameters take no memory. Where
    that fails on one, such as a model that reads its own weights, all ranks have values. All must
    be at the same state of torch's generator, which ends as if each had called `make`.
    """
    if world.size == 1:
        return make(), {}
    start = torch.get_rng_state()
    model = None
    try:
        model = make() if world.rank == 0 else _without_values(make)
    finally:  # also with an error, so that all ranks meet their own
        world.wait_for_all()  # rank 0 may read its weights from a slow disk
        needs_values = world.agree(int(model is None))
    if model is None or (needs_values and world.rank):
        torch.set_rng_state(start)
        model = make()
    state = torch.get_rng_state()
    dist.broadcast(state, 0)
    torch.set_rng_state(state)
    if needs_values:
        return model, {}
    for buffer in model.buffers():
        if buffer.numel():
            broadcast(buffer.detach())
    for parameter in model.parameters():
        setattr(parameter, DEFERRED, True)
    return model, {name: parameter.detach() for name, parameter in model.named_parameters()}


def _without_values(make: Callable[[], Module]) -> Module | None:
    """The model of `make` in memory that nothing has written to; None: it cannot be built so."""
    before = _on_meta()
    try:
        with torch.device("meta"):
            model = make()
        tensors = [*model.parameters(), *model.buffers()]
        storages = {tensor.untyped_storage()._cdata for tensor in tensors}
        if len(storages) < len(tensors) or any(map(_is_special, model.parameters())):
            return None
        for tensor in tensors:
            if tensor.is_meta:
                _give_memory(tensor)
    except Exception as error:
        cause = error.__context__ or error  # an error of a file hides its cause
        if isinstance(cause, _READS_VALUES):
            return None
        raise
    return None if _on_meta() - before else model  # such as one in a list


def _is_special(parameter: Parameter) -> bool:
    """Whether it is more than its values: of another class, or with gradient hooks."""
    return type(parameter) is not Parameter or bool(gradient_hooks(parameter))


def _give_memory(tensor: Tensor) -> None:
    empty = torch.empty_like(tensor, device="cpu")
    if isinstance(tensor, Parameter):
        empty = Parameter(empty, tensor.requires_grad)
    empty.__dict__.update(tensor.__dict__)
    swap_tensors(tensor, empty)


def _on_meta() -> set[int]:
    """The identities of all tensors without memory."""
    gc.collect()
    return {id(x) for x in gc.get_objects() if type(x) in (Tensor, Parameter) and x.is_meta}


def write(weights: dict[str, Tensor], engine: Engine) -> None:
    """Write the values of rank 0 into the weights that each rank holds under `engine`. Collective.

    One parameter after the other leaves `weights`, is whole on the device, and then freed.
    """
    if not weights:
        return
    held = defaultdict(list)
    for piece in engine.state().pieces:
        if piece.kind == WEIGHT:
            held[piece.name].append(piece)
    device = engine.world.device
    for name in list(weights):
        values = weights.pop(name).reshape(-1)
        if engine.world.rank == 0:
            values = values.to(device)
        else:  # no host memory was written to: it stays so
            values = torch.empty_like(values, device=device)
        broadcast(values)
        for piece in held[name]:
            piece.data.detach().copy_(values[piece.start :][: piece.data.numel()])
    del values
    trim_heap()  # glibc may keep them, in a heap full of holes
    engine.refresh()
