"""Deferred initialization: a new model takes no memory for its weights until it is sharded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Module
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from engines.base import Engine, Piece, World
from engines.device import trim_heap
from engines.state import WEIGHT

_CHUNK_BYTES = 4 * 2**20
_TRIM_BYTES = 32 * 2**20
_MARK = "_gearshift_deferred"
_OVERWRITES = {f"aten::{name}" for name in ("normal_", "uniform_", "fill_.Scalar", "zero_")}
_READ_MEMORY = (
    *(Tensor.numpy, Tensor.__array__, Tensor.tolist, Tensor.__deepcopy__, Tensor.__reduce_ex__),
    *(Tensor.data_ptr, Tensor.__dlpack__, Tensor.share_memory_),
)
"""Methods that use the values of a tensor without an operator."""


def is_deferred(tensor: Tensor) -> bool:
    """Whether `tensor` is a parameter whose values DeferredWeights will write."""
    return hasattr(tensor, _MARK)


def build(
    make: Callable[[], Module], world: World, *, defers_alone: bool = False
) -> tuple[Module, DeferredWeights]:
    """The model of `make`, without the values of its parameters, and these values. Collective.

    Operators that only write to one tensor (normal_, fill_) are recorded instead of called, so that
    the system provides no memory. A tensor that is read meanwhile gets its values at once. All
    ranks must be at the same state of torch's generator, which ends as if each had called `make`.
    With one rank nothing is deferred unless `defers_alone`: random numbers would be drawn twice.
    """
    if world.size == 1 and not defers_alone:
        return make(), DeferredWeights({}, _Recorder(False))
    start = torch.get_rng_state()
    try:
        recorder = _Recorder(world.rank == 0)
        model, tensors = recorder.build(make)
    except _ValuesNeeded:
        torch.set_rng_state(start)
        recorder = _Recorder(True)
        model, tensors = recorder.build(make)
    state = world.broadcast(torch.get_rng_state().numpy().tobytes())
    torch.set_rng_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))
    return model, DeferredWeights(tensors, recorder)


class DeferredWeights:
    """The initial values of parameters; only rank 0 can compute them."""

    def __init__(self, tensors: Mapping[str, Tensor], recorder: _Recorder):
        self._tensors = dict(tensors)
        self._recorder = recorder

    def write(self, engine: Engine) -> None:
        """Write the values into the weights that each rank holds under `engine`. Collective."""
        if not self._tensors:
            return
        world = engine.world
        held: dict[str, list[Piece]] = {name: [] for name in self._tensors}
        for piece in engine.state().pieces:
            if piece.kind == WEIGHT and piece.name in held:
                held[piece.name].append(piece)
        freed = 0
        for name in list(self._tensors):
            freed += self._tensors[name].nbytes
            self._write(self._tensors.pop(name), held[name], world)
            if freed >= _TRIM_BYTES:  # glibc may keep them, in a heap full of holes
                trim_heap()
                freed = 0
        engine.refresh()

    def _write(self, tensor: Tensor, pieces: Sequence[Piece], world: World) -> None:
        if world.rank == 0:
            self._recorder.finish(tensor)
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
        if world.size > 1:
            dist.broadcast(values, 0)
        yield start, values


class _ValuesNeeded(BaseException):
    """A rank without values has to read one."""


@dataclass(frozen=True)
class _Write:
    function: Callable[..., Any]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    generator: Tensor | None
    """The state of torch's generator before; None: it is not used."""


class _Recorder(TorchDispatchMode):
    """Records writes to tensors of the CPU; calls those of a tensor before its values are used.

    Without `draws`, random numbers are skipped, and a use of them raises _ValuesNeeded.
    """

    def __init__(self, draws: bool):
        super().__init__()
        self._draws = draws
        self._skips = False
        self._scratch = torch.empty(0, dtype=torch.uint8)
        self._writes: dict[int, list[_Write]] = {}
        """By the address of the storage, which its tensors here keep alive."""

    def build(self, make: Callable[[], Module]) -> tuple[Module, dict[str, Tensor]]:
        """The model of `make`, and the parameters that are deferred, by name."""
        with _MemoryReads(), self:
            model = make()
        self._scratch = torch.empty(0, dtype=torch.uint8)
        addresses = {name: _address(p) for name, p in model.named_parameters()}
        owners = Counter(addresses.values())
        names = [n for n, a in addresses.items() if a in self._writes and owners[a] == 1]
        deferred = {name: model.get_parameter(name) for name in names}
        deferred_addresses = {addresses[name] for name in names}
        for address in self._writes.keys() - deferred_addresses:
            if self._is_used(address):  # by a buffer, or a tensor that is not registered
                self._finish(address)
            else:
                del self._writes[address]
        for parameter in deferred.values():
            setattr(parameter, _MARK, True)
        return model, {name: p.detach() for name, p in deferred.items()}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE) is not None:
            return func(*args, **kwargs)  # it computes shapes, without values
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        is_random = torch.Tag.nondeterministic_seeded in func.tags
        if len(tensors) == 1 and _only_writes(func, args) and not kwargs.get("generator"):
            self._record(func, args, kwargs, is_random)
            return args[0] if func._schema.returns else None
        if is_random and self._skips:
            raise _ValuesNeeded
        if not _is_view(func):
            for tensor in tensors:
                self.finish(tensor)
        return func(*args, **kwargs)

    def _record(self, func: Any, args: Any, kwargs: Mapping[str, Any], is_random: bool) -> None:
        tensor: Tensor = args[0]
        writes = self._writes.setdefault(_address(tensor), [])
        if func.name() in _OVERWRITES and tensor.nbytes == tensor.untyped_storage().nbytes():
            writes.clear()
        state = torch.get_rng_state() if is_random else None
        # Detached: engines replace the data of a parameter.
        writes.append(_Write(func, (tensor.detach(), *args[1:]), kwargs, state))
        if is_random and self._draws:
            func(self._scratch_like(tensor), *args[1:], **kwargs)  # for the state after it
        elif is_random:
            self._skips = True

    def _scratch_like(self, tensor: Tensor) -> Tensor:
        # One for all tensors: a new one each time would be freed into the memory of the next.
        if self._scratch.numel() < tensor.untyped_storage().nbytes():
            self._scratch = torch.empty(tensor.untyped_storage().nbytes(), dtype=torch.uint8)
        end = self._scratch.numel() // tensor.itemsize * tensor.itemsize
        flat = self._scratch[:end].view(tensor.dtype)
        return flat.as_strided(tensor.shape, tensor.stride())

    def _is_used(self, address: int) -> bool:
        """Whether a tensor other than those recorded shares the storage."""
        count = torch._C._storage_Use_Count
        alone = torch.empty(1)
        others = count(_address(alone)) - 1  # the storage's Python object may count
        return count(address) - others > len(self._writes[address])

    def finish(self, tensor: Tensor) -> None:
        """Call the recorded writes to the storage of `tensor`."""
        if tensor.layout == torch.strided:
            self._finish(_address(tensor))

    def _finish(self, address: int) -> None:
        if (writes := self._writes.pop(address, None)) is None:
            return
        if not self._draws and any(write.generator is not None for write in writes):
            raise _ValuesNeeded
        state = torch.get_rng_state()
        with torch.no_grad():
            for write in writes:
                if write.generator is not None:
                    torch.set_rng_state(write.generator)
                write.function(*write.args, **write.kwargs)
        torch.set_rng_state(state)


class _MemoryReads(TorchFunctionMode):
    """Calls an operator with a tensor before a method uses its memory."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _READ_MEMORY:
            args[0].new_empty(0)
        return func(*args, **(kwargs or {}))


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _only_writes(func: Any, args: Sequence[Any]) -> bool:
    """Whether `func` changes the values of its first argument, a tensor on the CPU."""
    if not args or not isinstance(args[0], Tensor):
        return False
    first = func._schema.arguments[0].alias_info
    return (
        args[0].device.type == "cpu"
        and args[0].layout == torch.strided
        and first is not None
        and first.is_write
        and torch.Tag.inplace_view not in func.tags
    )


def _is_view(func: Any) -> bool:
    """Whether `func` returns tensors that share the memory of its arguments, and writes nothing."""
    aliases = [a.alias_info for a in func._schema.arguments if a.alias_info is not None]
    return bool(aliases) and not any(alias.is_write for alias in aliases)
