"""Deferred initialization: only rank 0 has the weights of a new model until it is sharded."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Module, Parameter

from engines.base import Engine, Piece, World
from engines.device import trim_heap
from engines.state import WEIGHT

_MARK = "_gearshift_deferred"
# What a model raises that needs a value; a fault of its own is raised again with values.
_READS_VALUES = (RuntimeError, TypeError, ValueError, ArithmeticError, LookupError, AssertionError)


def is_deferred(tensor: Tensor) -> bool:
    """Whether `tensor` is a parameter whose values DeferredWeights will write."""
    return hasattr(tensor, _MARK)


def build(make: Callable[[], Module], world: World) -> tuple[Module, DeferredWeights]:
    """The model of `make`, and the values of its parameters, which rank 0 has. Collective.

    The other ranks build it on the device "meta", so that their parameters take no memory. Where
    that fails on one, such as a model that reads its own weights, all ranks have values. All must
    be at the same state of torch's generator, which ends as if each had called `make`.
    """
    if world.size == 1:
        return make(), DeferredWeights({})
    start = torch.get_rng_state()
    model = None
    try:
        model = make() if world.rank == 0 else _without_values(make)
    finally:  # also with an error, so that all ranks meet their own
        needs_values = world.agree(int(model is None))
    if model is None or (needs_values and world.rank):
        torch.set_rng_state(start)
        model = make()
    state = torch.get_rng_state()
    dist.broadcast(state, 0)
    torch.set_rng_state(state)
    if needs_values:
        return model, DeferredWeights({})
    for buffer in (buffer for buffer in model.buffers() if buffer.numel()):
        values = buffer.detach().contiguous().view(-1)
        dist.broadcast(values.view(torch.uint8), 0)
        buffer.copy_(values.view(buffer.shape))
    parameters = dict(model.named_parameters())
    for parameter in parameters.values():
        setattr(parameter, _MARK, True)
    return model, DeferredWeights({name: p.detach() for name, p in parameters.items()})


def _without_values(make: Callable[[], Module]) -> Module | None:
    """The model of `make` in memory that nothing has written to; None: it cannot be built so."""
    before = {id(tensor) for tensor in _on_meta()}
    try:
        with torch.device("meta"):
            model = make()
    except Exception as error:
        if isinstance(error.__context__ or error, _READS_VALUES):  # an error of a file hides its cause
            return None
        raise
    is_plain = all(type(p) is Parameter for p in model.parameters()) and _replace_meta(model)
    has_more = any(id(tensor) not in before for tensor in _on_meta())  # such as one in a list
    return model if is_plain and not has_more else None


def _replace_meta(model: Module) -> bool:
    """Give the tensors of `model` memory; whether no two of them share it."""
    tensors = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}
    new: dict[int, Tensor] = {}
    for key, tensor in tensors.items():
        if tensor.is_meta:
            empty: Tensor = torch.empty_like(tensor, device="cpu")
            is_trained = isinstance(tensor, Parameter)
            new[key] = Parameter(empty, tensor.requires_grad) if is_trained else empty
            new[key].__dict__.update(tensor.__dict__)
    for module in model.modules():
        for own in (module._parameters, module._buffers):
            own.update({name: new.get(id(tensor), tensor) for name, tensor in own.items()})  # type: ignore
    return len({tensor.untyped_storage()._cdata for tensor in tensors.values()}) == len(tensors)


def _on_meta() -> list[Tensor]:
    gc.collect()
    return [x for x in gc.get_objects() if type(x) in (Tensor, Parameter) and x.is_meta]


class DeferredWeights:
    """The initial values of parameters; only those of rank 0 count."""

    def __init__(self, tensors: Mapping[str, Tensor]):
        self._tensors = dict(tensors)

    def write(self, engine: Engine) -> None:
        """Write the values into the weights that each rank holds under `engine`. Collective.

        One parameter after the other is whole on the device, and then freed.
        """
        if not self._tensors:
            return
        held: dict[str, list[Piece]] = {name: [] for name in self._tensors}
        for piece in engine.state().pieces:
            if piece.kind == WEIGHT and piece.name in held:
                held[piece.name].append(piece)
        device = engine.world.device
        for name, pieces in held.items():
            values = self._tensors.pop(name).detach().reshape(-1)
            # Of other ranks no host memory was written to: it stays so.
            values = values.to(device) if engine.world.rank == 0 else torch.empty_like(values, device=device)
            dist.broadcast(values, 0)
            for piece in pieces:
                piece.data.detach().copy_(values[piece.start :][: piece.data.numel()])
        del values
        trim_heap()  # glibc may keep them, in a heap full of holes
        engine.refresh()
