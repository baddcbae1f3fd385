"""Deferred initialization: only rank 0 has the weights of a new model until it is sharded."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Module, Parameter

from engines.base import Engine, Piece, World
from engines.device import trim_heap
from engines.state import WEIGHT

_CHUNK_BYTES = 4 * 2**20
_TRIM_BYTES = 32 * 2**20
_MARK = "_gearshift_deferred"
_READS_VALUES = (RuntimeError, TypeError, ValueError, ArithmeticError, LookupError, AssertionError)
"""What a model raises that needs a value; a fault of its own is raised again with values."""


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
    torch.set_rng_state(_sent_whole(torch.get_rng_state(), world))
    if needs_values:
        return model, DeferredWeights({})
    for buffer in model.buffers():
        buffer.copy_(_sent_whole(buffer, world))
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
    new = {key: _empty(tensor) for key, tensor in tensors.items() if tensor.is_meta}
    for module in model.modules():
        for own in (module._parameters, module._buffers):
            own.update({name: new.get(id(tensor), tensor) for name, tensor in own.items()})  # type: ignore
    return len({tensor.untyped_storage()._cdata for tensor in tensors.values()}) == len(tensors)


def _empty(tensor: Tensor) -> Tensor:
    empty: Tensor = torch.empty_like(tensor, device="cpu")
    if isinstance(tensor, Parameter):
        empty = Parameter(empty, tensor.requires_grad)
    empty.__dict__.update(tensor.__dict__)
    return empty


def _on_meta() -> list[Tensor]:
    gc.collect()
    return [x for x in gc.get_objects() if type(x) in (Tensor, Parameter) and x.is_meta]


def _sent_whole(tensor: Tensor, world: World) -> Tensor:
    """The values of rank 0's small `tensor`. Collective."""
    content = tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    values = torch.frombuffer(bytearray(world.broadcast(content)) or bytearray(1), dtype=torch.uint8)
    return values[: tensor.nbytes].view(tensor.dtype).view(tensor.shape)


class DeferredWeights:
    """The initial values of parameters; only those of rank 0 count."""

    def __init__(self, tensors: Mapping[str, Tensor]):
        self._tensors = dict(tensors)

    def write(self, engine: Engine) -> None:
        """Write the values into the weights that each rank holds under `engine`. Collective."""
        if not self._tensors:
            return
        held: dict[str, list[Piece]] = {name: [] for name in self._tensors}
        for piece in engine.state().pieces:
            if piece.kind == WEIGHT and piece.name in held:
                held[piece.name].append(piece)
        freed = 0
        for name in list(self._tensors):
            freed += self._tensors[name].nbytes
            _write(self._tensors.pop(name), held[name], engine.world)
            if freed >= _TRIM_BYTES:  # glibc may keep them, in a heap full of holes
                trim_heap()
                freed = 0
        engine.refresh()


def _write(tensor: Tensor, pieces: Sequence[Piece], world: World) -> None:
    for start, values in _sent(tensor, world):
        for piece in pieces:
            first = max(start, piece.start)
            end = min(start + values.numel(), piece.start + piece.data.numel())
            if first < end:
                part = values[first - start : end - start]
                piece.data.detach()[first - piece.start : end - piece.start].copy_(part)


def _sent(tensor: Tensor, world: World) -> Iterator[tuple[int, Tensor]]:
    """Chunks of rank 0's flattened `tensor`, with the elements before each. Collective."""
    flat = tensor.detach().reshape(-1)
    length = _CHUNK_BYTES // flat.itemsize
    for start in range(0, flat.numel(), length):
        values = flat[start : start + length]
        values = values.to(world.device) if world.rank == 0 else torch.empty_like(values, device=world.device)
        dist.broadcast(values, 0)
        yield start, values
