"""Lives of tensor storages: when each is made and freed, how large it is, and what it holds."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from itertools import accumulate
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor
from torch._prims_common import suggest_memory_format
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.distributed import ProcessGroup
from torch.nn import Parameter
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from gearshift.engines.state import stored
from gearshift.training.step_metrics import BACKWARD

_DTENSORS = "torch.distributed.tensor"
"""The module of the class DTensor; importing it takes half a second."""
_COUNTED = (Tensor, Parameter, FakeTensor)
_DEVICE = torch.ops.prim.device.default
_READ = torch.ops.aten._local_scalar_dense.default
_CONVOLUTION_BACKWARD = torch.ops.aten.convolution_backward.default
_IN_ROWS = (torch.ops.aten._log_softmax.default, torch.ops.aten._softmax.default)
_CPU_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_CPU_ATTENTION_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
_FLOPS: Mapping[Any, Any] = {
    **flop_registry,  # of attention, kernels of GPUs only
    _CPU_ATTENTION: lambda *args, **_: sdpa_flop_count(*(x.shape for x in args[:3])),
    _CPU_ATTENTION_BACKWARD: lambda *args, **_: sdpa_backward_flop_count(
        *(x.shape for x in args[:4])
    ),
}
"""Operations of one call; those that compute an element at a time are left out."""


class Kind(IntEnum):
    """What a storage holds, in the order of a report."""

    WEIGHTS = 0
    GRADIENTS = 1
    OPTIMIZER = 2
    ACTIVATIONS = 3
    TEMPORARIES = 4
    COMMUNICATION = 5


class Phase(IntEnum):
    """A part of a step; setup comes before the first one."""

    SETUP = 0
    FORWARD = 1
    BACKWARD = 2
    UPDATE = 3


class Moments(NamedTuple):
    """What is held after each allocation and release; int64, [moment] where not said otherwise."""

    phase: np.ndarray
    held: np.ndarray
    """Bytes [moment, kind]."""
    computed: np.ndarray
    """Elements of the gradients that the backward pass has completed."""


def fullest(held: np.ndarray) -> Mapping[Kind, int]:
    """The moment with the most of `held` bytes [moment, kind]."""
    return dict(zip(Kind, held[held.sum(1).argmax()].tolist(), strict=True))


@dataclass
class _Life:
    """The use of a storage for one kind of content; its memory may have several, one by one."""

    size: int
    phase: Phase
    kind: Kind = Kind.TEMPORARIES
    copies: int = 0
    """Further storages that are freed with it, see Storages.repeat."""


class Mark(NamedTuple):
    """What is recorded so far."""

    changes: int
    computed: int
    flops: int
    launches: Counter[Phase]


class Storages(TorchDispatchMode):
    """Records the storages that operators return while it is on, real and fake ones.

    Those on the meta device have no bytes, and neither have fake tensors of another mode than
    its own: DTensor makes some of the whole size, once, to learn the shapes of its shards. A number
    that the program reads from a fake tensor is 1.
    """

    def __init__(self, is_fake: bool = True) -> None:
        """`is_fake`: new tensors inside `computing` are fake."""
        super().__init__()
        self.mode = FakeTensorMode(allow_non_fake_inputs=True) if is_fake else None
        self.phase = Phase.SETUP
        self.sent = 0.0
        """Bytes that this rank sends in collectives, with ring algorithms."""
        self.sent_before_last = 0.0
        """Of them, before the last micro-batch."""
        self.flops = 0
        """Of products, convolutions and attention."""
        self.launches: Counter[Phase] = Counter()
        """Kernels that a GPU would start, about, by phase; of a list an operator starts several."""
        self.computed = 0
        """Elements of the completed gradients of a backward pass."""
        self.is_host = False
        """New storages are in host memory: no moment has their bytes."""
        self.host_bytes = 0
        self.is_repeated = False
        """What is recorded now will be repeated: releases for all copies."""
        self._now: dict[int, _Life] = {}
        """By the address of the storage."""
        self.changes: list[tuple[Phase, int, _Life, int]] = []
        """Allocations and releases so far, with the completed gradients. 1: begins; -1: ends."""

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Off while torch.compile traces a graph, on while its program runs."""
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is _DEVICE:
            return args[0].device  # autograd asks more often than it computes
        if any(kind.__module__.startswith(_DTENSORS) for kind in types):
            return NotImplemented  # it calls again with the tensors of this rank
        if func is _READ and isinstance(args[0], FakeTensor):
            return 1.0 if args[0].is_floating_point() else 1
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        leaves = [result] if isinstance(result, Tensor) else tree_leaves(result)
        tensors = [leaf for leaf in leaves if type(leaf) in _COUNTED]
        if any(getattr(tensor, "fake_mode", self.mode) is not self.mode for tensor in tensors):
            return result
        for tensor in tensors:
            if tensor.device.type != "meta":
                self._count(tensor.untyped_storage())
        copied_bytes = _copied_bytes(func, args)
        if copied_bytes:  # the copy begins and ends within the operator
            life = _Life(copied_bytes, self.phase)
            self._record(life, 1)
            self._record(life, -1)
        count_flops = _FLOPS.get(func._overloadpacket)
        if count_flops is not None:
            self.flops += int(count_flops(*args, **kwargs, out_val=result))
        self.launches[self.phase] += _starts_kernel(func)
        if func.namespace == "c10d":
            self._note_collective(func.__name__, args)
        return result

    def label(self, tensors: Iterable[Tensor], kind: Kind) -> None:
        """From now on the storages of `tensors` hold `kind`."""
        for tensor in tensors:
            for part in stored(tensor):
                storage = part.untyped_storage()
                self._count(storage)
                life = self._now[storage._cdata]
                if life.kind is not kind:
                    self._change(storage._cdata, _Life(life.size, self.phase, kind))

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Inside, all is recorded, and new tensors are fake."""
        with self.mode or nullcontext(), self:  # after the mode: it sees what the mode returns
            yield

    @contextmanager
    def during(self, phase: Phase) -> Iterator[None]:
        """Inside, the step is in `phase`."""
        before = self.phase
        self.phase = phase
        try:
            yield
        finally:
            self.phase = before

    def enter(self, part: str) -> None:
        """The forward or the backward phase of a micro-batch begins.

        What a backward pass leaves to the next micro-batch are gradients, what a forward pass
        leaves to its backward pass are activations.
        """
        if part == BACKWARD:
            self.phase = Phase.BACKWARD
            self.keep(Phase.FORWARD, Kind.ACTIVATIONS)
            return
        self.sent_before_last = self.sent
        self.keep(Phase.BACKWARD, Kind.GRADIENTS)
        self.computed = 0
        self.phase = Phase.FORWARD

    def mark(self) -> Mark:
        """What is recorded so far."""
        return Mark(len(self.changes), self.computed, self.flops, self.launches.copy())

    def repeat(self, start: Mark, end: Mark) -> None:
        """Record once more what was recorded from `start` to `end`."""
        computed_before = self.computed - start.computed
        for phase, computed, life, sign in self.changes[start.changes : end.changes]:
            self.changes.append((phase, computed_before + computed, life, sign))
            if phase is Phase.FORWARD:
                life.copies += sign
        self.computed += end.computed - start.computed
        self.flops += end.flops - start.flops
        self.launches += end.launches - start.launches

    def life(self, tensor: Tensor) -> _Life:
        """The present use of the storage of `tensor`."""
        return self._now[tensor.untyped_storage()._cdata]

    def restart_counts(self) -> None:
        """Count what a step does from now on."""
        self.flops = 0
        self.sent = 0.0
        self.launches.clear()

    def complete(self, parameter: Tensor) -> None:
        """The backward pass has completed the gradient of `parameter`."""
        assert parameter.grad is not None
        self.label([parameter.grad], Kind.GRADIENTS)
        self.computed += parameter.numel()

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
            result = original(storage, size)
            self._count(storage)
            life = _Life(storage.nbytes(), self.phase, Kind.COMMUNICATION)
            self._change(storage._cdata, life)
            return result

        with patch.object(storages, "resize_", resize):
            yield

    def moments(self, start: int = 0) -> Moments:
        """What was held before the change with the number `start`, and after each from then on."""
        changes = np.array(
            [(*head, life.kind, life.size * sign) for *head, life, sign in self.changes]
        )
        phase, computed, kinds, sizes = changes.T
        held = np.zeros((len(changes) + 1, len(Kind)), np.int64)
        held[np.arange(len(changes)) + 1, kinds] = sizes
        at = [start, *range(start, len(changes))]
        return Moments(phase[at], held.cumsum(0)[start:], computed[at])

    def most_bytes(self, start: int) -> int:
        """The most bytes that were held since the change `start`, beyond those before it."""
        sizes = [life.size * sign for *_, life, sign in self.changes[start:]]
        return max(accumulate(sizes, initial=0))

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self._now:
            weakref.finalize(storage, self._change, storage._cdata, None).atexit = False
            size = 0 if self.is_host else storage.nbytes()
            self.host_bytes += storage.nbytes() - size
            self._change(storage._cdata, _Life(size, self.phase))

    def _change(self, address: int, life: _Life | None) -> None:
        before = self._now.pop(address, None)
        if before:
            self._record(before, -1)
        if life:
            self._now[address] = life
            self._record(life, 1)

    def _record(self, life: _Life, sign: int) -> None:
        times = 1
        if sign < 0 and not self.is_repeated:  # such as weights in bf16 that autocast keeps
            times += life.copies
        self.changes += [(self.phase, self.computed, life, sign)] * times

    def _note_collective(self, name: str, args: Any) -> None:
        tensors = [leaf for leaf in tree_leaves(args) if type(leaf) in _COUNTED]
        groups = [arg for arg in args if isinstance(arg, torch.ScriptObject)]
        if tensors and groups:
            # The ring of an all-reduce passes the data around twice.
            rounds = 2 if name.startswith("allreduce") else 1
            ranks = ProcessGroup.unbox(groups[0]).size()
            whole = max(tensor_bytes(arg) for arg in args)
            self.sent += rounds * whole * (ranks - 1) / ranks
            self.label(tensors, Kind.COMMUNICATION)


def tensor_bytes(tree: Any) -> int:
    """Bytes of the tensors in it."""
    return sum(leaf.nbytes for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))


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
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
    "_local_scalar_dense",
    "_unsafe_view",
    "set_",
    "resize_",
}


@cache
def _starts_kernel(func: Any) -> bool:
    """Whether the operator does more on a GPU than to allocate, to view or to describe."""
    returns = func._schema.returns
    is_view = any(each.alias_info and not each.alias_info.is_write for each in returns)
    name = func.__name__.partition(".")[0]
    return func.namespace not in ("prim", "profiler") and not is_view and name not in _STARTS_NONE
