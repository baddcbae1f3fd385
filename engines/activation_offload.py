"""Activations in host memory from the forward pass of a block to just before its backward pass."""

from __future__ import annotations

import weakref
from bisect import bisect_left, insort
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import Module
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from engines import pinned
from engines.base import Blocks, EngineError

SMALLEST = 2**20
"""Bytes; a copy of less takes as long to start as to run."""


class ActivationOffload:
    """Moves what the blocks of a model save for the backward pass to host memory and back.

    A storage is copied whole and once, however many saved tensors view it. The device memory of a
    block is released when the next block has computed, and filled again when the backward pass
    enters the block after it: the device holds two blocks. Parameters, their copies in fewer bits,
    buffers, storages below SMALLEST and all of the last block, whose backward pass comes first,
    stay. Source of the idea: save_on_cpu in torch.autograd.graph; torchtune, OffloadActivations.
    Raises EngineError for a model without two blocks.
    """

    def __init__(self, model: Module, blocks: Blocks, device: torch.device):
        if len(blocks) < 2:
            raise EngineError("memory.activation_offload needs a model of two blocks or more; leave it out")
        inside = {module for block in blocks for module in block.modules()}
        self._outside = [module for module in model.modules() if module not in inside]
        self._blocks, self._device = blocks, device
        self._copies = Copies(device)
        self._moved = weakref.WeakValueDictionary[tuple[int, int], _Moved]()
        self._leaving: list[_Moved] = []
        self._pass = _Pass(blocks[0])
        self.keep: Callable[[Tensor], Any] = lambda tensor: tensor
        """What is saved of a tensor that stays; `kept` returns the tensor."""
        self.kept: Callable[[Any], Tensor] = lambda saved: saved

    def wrap(self) -> None:
        """Move what calls of the blocks save from now on; outside of graphs, if compiled."""
        for block in self._blocks:
            name = "forward" if block._compiled_call_impl is None else "_compiled_call_impl"
            setattr(block, name, partial(self._call, block, getattr(block, name)))

    def _call(self, block: Module, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return call(*args, **kwargs)
        self._pass = one = _Pass(block, weakref.ref(self._pass))
        with saved_tensors_hooks(partial(self._pack, one), self._unpack):
            result = call(*args, **kwargs)
        for moved in self._leaving:
            moved.release()
        self._leaving = list(one.moved.values())
        return result

    def _pack(self, one: _Pass, tensor: Tensor) -> Any:
        if not self._moves(one.block, tensor):
            return one, self.keep(tensor), None
        # The weak reference in `moved` keeps the address from another storage.
        key = tensor.untyped_storage()._cdata, tensor._version
        moved = self._moved.get(key)
        if moved is None:
            moved = self._moved[key] = _Moved(tensor.detach(), self._copies)
        one.moved[id(moved)] = moved
        return one, moved, (tensor.dtype, tensor.size(), tensor.stride(), tensor.storage_offset())

    def _moves(self, block: Module, tensor: Tensor) -> bool:
        is_plain = tensor.layout is torch.strided and not is_traceable_wrapper_subclass(tensor)
        is_other = tensor.device.type != self._device.type or tensor.is_conj() or tensor.is_neg()
        if block is self._blocks[-1] or is_other or not is_plain:
            return False
        storage = tensor.untyped_storage()
        if storage.nbytes() < SMALLEST or storage.nbytes() % tensor.element_size():
            return False
        if tensor.is_floating_point() and any(_is_cast(tensor, p) for p in block.parameters()):
            return False
        # Now, as engines gather weights, so that storages change.
        modules = (*block.modules(), *self._outside)
        return all(
            storage._cdata != weight.untyped_storage()._cdata
            for module in modules
            for weight in (*module.parameters(False), *module.buffers(False))
            if not is_traceable_wrapper_subclass(weight)
        )

    def _unpack(self, saved: tuple[_Pass, Any, Any]) -> Tensor:
        one, content, view = saved
        if not one.is_back:
            one.is_back = True
            self._leaving.clear()  # they are needed first
            for each in (one, one.before()):
                for moved in reversed(list(each.moved.values()) if each else []):
                    moved.load()
        return self.kept(content) if view is None else content.view(*view)


def _is_cast(tensor: Tensor, weight: Tensor) -> bool:
    """Whether `tensor` is laid out as a copy of `weight` in fewer bits, or as its transpose.

    Autocast keeps such copies on the device: moving one frees no memory.
    """
    if tensor.element_size() >= weight.element_size() or tensor.numel() != weight.numel():
        return False
    form = tensor.shape, tensor.stride()
    turned = weight.shape[::-1], weight.stride()[::-1]
    return form == (weight.shape, weight.stride()) or (weight.dim() == 2 and form == turned)


class Copies:
    """Copies between a device and its host; on CUDA beside the computation, on one stream.

    One stream for both directions: a host buffer is used again after the copy that read it.
    """

    def __init__(self, device: torch.device):
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._free: list[Tensor] = []  # Host buffers by size: pinning new ones takes longer than the copies

    def to_host(self, source: Tensor) -> tuple[Tensor, Any]:
        """A host buffer with the bytes `source`, which must live until `wait` for the event."""
        size = source.numel()
        at = bisect_left(self._free, size, key=Tensor.numel)
        if at < len(self._free):
            host = self._free.pop(at)
        else:
            if self._free:  # too small, all of them
                if self._stream is not None:
                    self._stream.synchronize()
                self._free.pop()
            host = pinned.allocate(size, self._device)
        return host, self._copy(host[:size], source)

    def to_device(self, host: Tensor, size: int) -> tuple[Tensor, Any]:
        """The first `size` bytes of `host`, to be used after `wait` for the event."""
        target = torch.empty(size, dtype=torch.uint8, device=self._device)
        return target, self._copy(target, host[:size])

    def _copy(self, target: Tensor, source: Tensor) -> Any:
        if self._stream is None:
            target.copy_(source)
            return None
        # The source is computed, or the memory of the target is no longer in use.
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            target.copy_(source, non_blocking=True)
        return self._stream.record_event()

    def wait(self, event: Any) -> None:
        """Let the computation that follows, not the process, wait for a copy."""
        if event is not None:
            torch.cuda.current_stream(self._device).wait_event(event)

    def free(self, host: Tensor) -> None:
        insort(self._free, host, key=Tensor.numel)


class _Moved:
    """A storage that has a copy on the host, as bytes.

    torch gives freed memory to what the computing stream does next. So a tensor is freed only after
    that stream waits for its last copy.
    """

    _host: Tensor | None = None

    def __init__(self, tensor: Tensor, copies: Copies):
        storage = tensor.untyped_storage()
        self._origin = StorageWeakRef(storage)
        self._size = storage.nbytes()
        whole = tensor.as_strided((self._size // tensor.element_size(),), (1,), 0)
        self._device: Tensor | None = whole.view(torch.uint8)
        self._version: int | None = self._device._version
        self._copies = copies
        self._host, self._event = copies.to_host(self._device)

    def release(self) -> None:
        self._copies.wait(self._event)
        if self._device is not None and self._device._version != self._version:
            self._version = None
        self._device = None

    def load(self) -> None:
        if self._device is None:
            assert self._host is not None
            self._device, self._event = self._copies.to_device(self._host, self._size)

    def view(self, dtype: torch.dtype, size: Any, stride: Any, offset: int) -> Tensor:
        """A saved tensor. Raises RuntimeError if it was changed while it was copied."""
        if self._version is None:
            raise RuntimeError(
                "a tensor that the backward pass needs was changed by an inplace operation after "
                "a block saved it"
            )
        self.load()
        assert self._device is not None
        self._copies.wait(self._event)
        return self._device.view(dtype).as_strided(size, stride, offset)

    def __del__(self) -> None:
        if self._host is not None:
            self._copies.wait(self._event)
            self._copies.free(self._host)


@dataclass(eq=False)
class _Pass:
    """One forward pass of a block; lives as long as a tensor that it saved."""

    block: Module
    before: Callable[[], _Pass | None] = lambda: None
    """That of the block before, if its backward pass is to come."""
    moved: weakref.WeakValueDictionary[int, _Moved] = field(default_factory=weakref.WeakValueDictionary)
    """In the order in which they were saved."""
    is_back: bool = False
    """Whether its backward pass has begun."""
