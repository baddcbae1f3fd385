"""Lives of tensor storages: when each is made and freed, how large it is, and what it holds."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._prims_common import suggest_memory_format
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.distributed import ProcessGroup
from torch.distributed.tensor import DTensor
from torch.nn import Parameter
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import (
    flop_registry,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

from engines.state import stored

_COUNTED = (Tensor, Parameter, FakeTensor)
_DEVICE = torch.ops.prim.device.default
_READ = torch.ops.aten._local_scalar_dense.default
_CONVOLUTION_BACKWARD = torch.ops.aten.convolution_backward.default
_IN_ROWS = (torch.ops.aten._log_softmax.default, torch.ops.aten._softmax.default)
_CPU_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_CPU_ATTENTION_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class Kind(Enum):
    """What a storage holds, in the order of a report."""

    WEIGHTS = "weights"
    GRADIENTS = "gradients"
    OPTIMIZER = "optimizer"
    ACTIVATIONS = "activations"
    TEMPORARIES = "temporaries"
    COMMUNICATION = "communication"


class Phase(Enum):
    """A part of a step; setup comes before the first one."""

    SETUP = "setup"
    FORWARD = "forward"
    BACKWARD = "backward"
    UPDATE = "update"


@dataclass(frozen=True)
class Moment:
    """The bytes of each kind after an allocation or a release."""

    phase: Phase
    held: Mapping[Kind, int]
    computed: int = 0
    """Elements of the gradients that the backward pass has completed."""

    @property
    def total(self) -> int:
        """All bytes."""
        return sum(self.held.values())


@dataclass
class _Life:
    """The use of a storage for one kind of content; its memory may have several, one by one."""

    size: int
    phase: Phase
    kind: Kind = Kind.TEMPORARIES


class Storages(TorchDispatchMode):
    """Records the storages that operators return while it is on, real and fake ones.

    Those on the meta device have no bytes, and neither have fake tensors of another mode than
    `mode`, if it is given: DTensor makes some of the whole size, once, to learn the shapes of its
    shards. A number that the program reads from a fake tensor is 1.
    """

    def __init__(self, mode: FakeTensorMode | None = None) -> None:
        super().__init__()
        self._mode = mode
        self.phase = Phase.SETUP
        self.sent = 0.0
        """Bytes that this rank sends in collectives, with ring algorithms."""
        self.flops = 0
        """Of products, convolutions and attention."""
        self.launches: Counter[Phase] = Counter()
        """Kernels that a GPU would start, by phase."""
        self.computed = 0
        """Elements of the completed gradients of a backward pass."""
        self.host_bytes = 0
        """Of storages made in `on_host`."""
        self._is_host = False
        self._now: dict[int, _Life] = {}
        """By the address of the storage."""
        self._changes: list[tuple[Phase, int, _Life, int]] = []
        """With the completed gradients. 1: begins; -1: ends."""

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Off while torch.compile traces a graph, on while its program runs."""
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is _DEVICE:
            return args[0].device  # autograd asks more often than it computes
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # it calls again with the tensors of this rank
        if func is _READ and isinstance(args[0], FakeTensor):
            return 1.0 if args[0].is_floating_point() else 1
        result = func(*args, **(kwargs or {}))
        leaves = [result] if isinstance(result, Tensor) else tree_leaves(result)
        tensors = [leaf for leaf in leaves if type(leaf) in _COUNTED]
        if any(map(self._is_foreign, tensors)):
            return result
        for tensor in tensors:
            if tensor.device.type != "meta":
                self._count(tensor.untyped_storage())
        if copied := _copied_bytes(func, args):
            self._pass(_Life(copied, self.phase))
        self.flops += _flops(func._overloadpacket, args, kwargs or {}, result)
        self.launches[self.phase] += launches(func, args)
        if func.namespace == "c10d":
            self._note_collective(func.__name__, args)
        return result

    def _is_foreign(self, tensor: Tensor) -> bool:
        if self._mode is None or not isinstance(tensor, FakeTensor):
            return False
        return tensor.fake_mode is not self._mode

    def label(self, tensors: Iterable[Tensor], kind: Kind) -> None:
        """From now on the storages of `tensors` hold `kind`."""
        for tensor in tensors:
            for part in stored(tensor):
                storage = part.untyped_storage()
                self._count(storage)
                if (life := self._now.get(storage._cdata)) and life.kind is not kind:
                    self._change(storage._cdata, _Life(life.size, self.phase, kind))

    @contextmanager
    def during(self, phase: Phase) -> Iterator[None]:
        """Inside, the step is in `phase`."""
        before, self.phase = self.phase, phase
        try:
            yield
        finally:
            self.phase = before

    @contextmanager
    def on_host(self) -> Iterator[None]:
        """Inside, new storages are in host memory: no moment has their bytes."""
        self._is_host = True
        try:
            yield
        finally:
            self._is_host = False

    def keep(self, phase: Phase, kind: Kind) -> None:
        """Temporaries of `phase` that are not freed by now were `kind` from the start."""
        for life in self._now.values():
            if life.phase is phase and life.kind is Kind.TEMPORARIES:
                life.kind = kind

    @contextmanager
    def resizes(self) -> Iterator[None]:
        """Inside, resized storages count with their new size: FSDP frees weights that way."""
        storages: Any = torch.UntypedStorage
        original = storages.resize_

        def resize(storage: torch.UntypedStorage, size: int) -> Any:
            done = original(storage, size)
            kind = Kind.COMMUNICATION
            self._count(storage)
            self._change(storage._cdata, _Life(storage.nbytes(), self.phase, kind))
            return done

        storages.resize_ = resize
        try:
            yield
        finally:
            storages.resize_ = original

    def moments(self, start: int = 0) -> Iterator[Moment]:
        """The moments after the first `start` changes, and that one itself."""
        held = dict.fromkeys(Kind, 0)
        for number, (phase, computed, life, sign) in enumerate(self._changes):
            if number == start:
                yield Moment(phase, dict(held), computed)
            held[life.kind] += sign * life.size
            if number >= start:
                yield Moment(phase, dict(held), computed)

    @property
    def changes(self) -> int:
        """The number of allocations and releases so far."""
        return len(self._changes)

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self._now:
            weakref.finalize(storage, self._change, storage._cdata, None).atexit = False
            size = 0 if self._is_host else storage.nbytes()
            self.host_bytes += storage.nbytes() - size
            self._change(storage._cdata, _Life(size, self.phase))

    def _change(self, address: int, life: _Life | None) -> None:
        if (before := self._now.pop(address, None)) is not None:
            self._changes.append((self.phase, self.computed, before, -1))
        if life is not None:
            self._now[address] = life
            self._changes.append((self.phase, self.computed, life, 1))

    def _pass(self, life: _Life) -> None:
        """It begins and ends within an operator."""
        self._changes += [(self.phase, self.computed, life, sign) for sign in (1, -1)]

    def _note_collective(self, name: str, args: Any) -> None:
        tensors = [leaf for leaf in tree_leaves(args) if type(leaf) in _COUNTED]
        groups = [ProcessGroup.unbox(arg) for arg in args if _is_group(arg)]
        if tensors and groups:
            # The ring of an all-reduce passes the data around twice.
            rounds, ranks = 2 if name.startswith("allreduce") else 1, groups[0].size()
            self.sent += rounds * max(map(_nbytes, args)) * (ranks - 1) / ranks
            self.label(tensors, Kind.COMMUNICATION)


def _nbytes(arg: Any) -> int:
    return sum(leaf.nbytes for leaf in tree_leaves(arg) if isinstance(leaf, Tensor))


def _is_group(arg: Any) -> bool:
    kind: Any = arg._type() if isinstance(arg, torch.ScriptObject) else None
    return kind is not None and kind.name() == "ProcessGroup"


def _copied_bytes(func: Any, args: Any) -> int:
    """What kernels copy, beside their results, of tensors in another layout than theirs."""
    if func in _IN_ROWS and not args[0].is_contiguous():
        return int(args[0].nbytes)
    if func is not _CONVOLUTION_BACKWARD:
        return 0
    gradient, values, weight = args[:3]
    layout = suggest_memory_format(values)
    if layout is torch.contiguous_format:
        layout = suggest_memory_format(weight)
    copied = 0 if gradient.is_contiguous(memory_format=layout) else gradient.nbytes
    if not weight.is_contiguous(memory_format=layout):
        copied += 3 * weight.nbytes  # a copy, and its gradient on the way to the layout of weight
    return int(copied)


_STARTS_NONE = {
    *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"),
    *("_local_scalar_dense", "_unsafe_view", "set_", "resize_"),
}
_MOST_TENSORS = (110, 64, 48, 36, 30)
"""Of one kernel over lists of tensors, by the number of lists. Source, with the other limit:
torch, aten/src/ATen/native/cuda/MultiTensorApply.cuh."""
_MOST_ELEMENTS = 320 * 65536


def launches(func: Any, args: Any) -> int:
    """The kernels that an operator starts on a GPU: one, several over lists, none for a view."""
    if not _computes(func):
        return 0
    lists = [arg for arg in args if isinstance(arg, list | tuple) and arg]
    lists = [arg for arg in lists if all(isinstance(each, Tensor) for each in arg)]
    if not func.__name__.startswith(("_foreach", "_fused")) or not lists:
        return 1
    most = _MOST_TENSORS[min(len(lists), len(_MOST_TENSORS)) - 1]
    elements = sum(tensor.numel() for tensor in lists[0])
    return max(-(-len(lists[0]) // most), -(-elements // _MOST_ELEMENTS))


@cache
def _computes(func: Any) -> bool:
    """Whether the operator does more than to allocate, to view or to describe."""
    returns = func._schema.returns
    is_view = any(each.alias_info and not each.alias_info.is_write for each in returns)
    name = func.__name__.partition(".")[0]
    return func.namespace not in ("prim", "profiler") and not is_view and name not in _STARTS_NONE


def _flops(operator: Any, args: Any, kwargs: Any, result: Any) -> int:
    """Operations of one call; 0 for operators that compute an element at a time."""
    if operator is _CPU_ATTENTION:  # torch's counter has the kernels of GPUs only
        return int(sdpa_flop_count(*(tensor.shape for tensor in args[:3])))
    if operator is _CPU_ATTENTION_BACKWARD:
        return int(sdpa_backward_flop_count(*(tensor.shape for tensor in args[:4])))
    count = flop_registry.get(operator)
    return 0 if count is None else int(count(*args, **kwargs, out_val=result))
