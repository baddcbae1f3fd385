"""Activations in host memory from the forward pass of a block to just before its backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import Module
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from gearshift.engines.base import Blocks, EngineError

SMALLEST = 2**20
"""Bytes; a copy of less takes as long to start as to run."""


class ActivationOffload:
    """Moves what the blocks of a model save for the backward pass to host memory and back.

    A storage is copied once, however many saved tensors view it. The device memory of a block is
    released when the next block has computed, and filled again when the backward pass enters the
    block after it: the device holds two blocks. Parameters, their copies in fewer bits, buffers,
    storages below SMALLEST and all of the last block stay. Source of the idea: save_on_cpu in
    torch.autograd.graph; torchtune, OffloadActivations. Raises EngineError for one block.
    """

    def __init__(self, model: Module, blocks: Blocks, device: torch.device):
        if len(blocks) < 2:
            raise EngineError(
                "memory.activation_offload needs a model of two blocks or more; leave it out"
            )
        self._outside = set(model.modules()).difference(*(block.modules() for block in blocks))
        self._blocks = blocks
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        # By address and version.
        self._moved: WeakValueDictionary[Any, Moved] = WeakValueDictionary()
        # The number of the newest forward pass of a block whose backward pass is to come.
        self._last = 0
        self.save: Callable[[Tensor], Any] = _same
        """What is saved of a tensor that stays."""
        self.restore: Callable[[Any], Tensor] = _same
        """The tensor of what `save` gave."""

    def wrap(self) -> None:
        """Move what calls of the blocks save from now on; outside of graphs, if compiled."""
        for block in self._blocks:
            name = "forward" if block._compiled_call_impl is None else "_compiled_call_impl"
            setattr(block, name, partial(self._call, block, getattr(block, name)))

    def _call(self, block: Module, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._last += 1
        number = self._last
        # At the first large tensor: hooks of an engine have then gathered the weights of the block.
        weights = cache(partial(_Weights, block, self._outside))
        with saved_tensors_hooks(partial(self._pack, block, number, weights), self._unpack):
            result = call(*args, **kwargs)
        for moved in list(self._moved.values()):
            if moved.number == number - 1:
                moved.release()
        return result

    def _pack(
        self, block: Module, number: int, weights: Callable[[], _Weights], tensor: Tensor
    ) -> Any:
        saved = self.save(tensor)
        is_last = block is self._blocks[-1]
        if is_last or saved is not tensor or not self._is_large(tensor) or weights().have(tensor):
            return number, None, saved
        key = tensor.untyped_storage()._cdata, tensor._version
        moved = self._moved.get(key) or Moved(tensor, self._stream)
        self._moved[key] = moved
        moved.number = number
        how = (tensor.dtype, tensor.size(), tensor.stride(), tensor.storage_offset())
        return number, moved, how

    def _is_large(self, tensor: Tensor) -> bool:
        """Whether its storage can be copied as bytes, and is worth it."""
        if tensor.layout is not torch.strided or tensor.device.type != self._device.type:
            return False
        if tensor.is_conj() or tensor.is_neg() or is_traceable_wrapper_subclass(tensor):
            return False
        size = tensor.untyped_storage().nbytes()
        return size >= SMALLEST and size % tensor.element_size() == 0

    def _unpack(self, saved: tuple[int, Moved | None, Any]) -> Tensor:
        number, moved, how = saved
        if number <= self._last:  # the backward pass enters this block
            self._last = number - 1
            for other in reversed(list(self._moved.values())):
                if other.number in (number - 1, number):
                    other.load()
        if moved is None:
            return self.restore(how)
        dtype, *layout = how
        whole = moved.load()
        moved.wait()
        return whole.view(dtype).as_strided(*layout)


def _same(value: Any) -> Any:
    return value


class _Weights:
    """What stays during one call of a block: weights, buffers, and copies of weights in fewer bits.

    Engines gather weights, so that the storages of the next call are others.
    """

    def __init__(self, block: Module, outside: Iterable[Module]):
        """`outside`: modules whose weights the block may use, too."""
        # References: the address of a storage that is freed meanwhile is not used again.
        self._storages: dict[int, StorageWeakRef] = {}
        for module in (*block.modules(), *outside):
            for weight in (*module.parameters(False), *module.buffers(False)):
                if not is_traceable_wrapper_subclass(weight):
                    reference = StorageWeakRef(weight.untyped_storage())
                    self._storages[reference.cdata] = reference
        self._widths: dict[tuple[int, ...], int] = {}
        for parameter in block.parameters():
            shape = parameter.shape
            width = max(self._widths.get(shape, 0), parameter.element_size())
            self._widths[shape] = width
            self._widths[shape[::-1]] = width

    def have(self, tensor: Tensor) -> bool:
        if tensor.untyped_storage()._cdata in self._storages:
            return True
        # Autocast keeps copies of weights on the device: moving one frees no memory.
        width = self._widths.get(tensor.shape, 0)
        return tensor.is_floating_point() and tensor.element_size() < width


class Moved:
    """A storage that has a copy on the host, as bytes.

    torch gives freed memory to what the computing stream does next, which waits for the last copy.
    """

    def __init__(self, tensor: Tensor, stream: Any):
        """`stream` copies beside the computation; None: the computation waits, as on a CPU."""
        self.number = 0  # of the newest forward pass that saved it
        self._event: Any = None  # of the last copy
        storage = tensor.untyped_storage()
        self._stream = stream
        self._where = tensor.device
        self._origin = StorageWeakRef(storage)  # no other one takes its address
        whole = tensor.detach().as_strided((storage.nbytes() // tensor.element_size(),), (1,), 0)
        self._device: Tensor | None = whole.view(torch.uint8)
        self._version = tensor._version
        self._host = self.copied(self._device, to_host=True)

    def copied(self, source: Tensor, to_host: bool) -> Tensor:
        """A copy of bytes, which is complete once the computation has waited."""
        target = torch.empty(
            source.shape,
            dtype=torch.uint8,
            device="cpu" if to_host else self._where,
            pin_memory=to_host and self._stream is not None,
        )
        if self._stream is None:
            return target.copy_(source)
        # The source is computed, or the memory of the target is no longer in use.
        self._stream.wait_stream(torch.cuda.current_stream(self._where))
        with torch.cuda.stream(self._stream):
            target.copy_(source, non_blocking=True)
        self._event = self._stream.record_event()
        return target

    def wait(self) -> None:
        """Let the computation that follows, not the process, wait for the last copy."""
        if self._event is not None:
            torch.cuda.current_stream(self._where).wait_event(self._event)

    def release(self) -> None:
        """Free the device memory. Raises RuntimeError if it changed since the block saved it."""
        self.wait()
        if self._device is not None and self._device._version != self._version:
            raise RuntimeError(
                "a tensor that the backward pass needs was changed by an inplace operation"
            )
        self._device = None

    def load(self) -> Tensor:
        """Its bytes on the device, to be used after `wait`."""
        if self._device is None:
            self._device = self.copied(self._host, to_host=False)
            self._version = self._device._version
        return self._device

    __del__ = wait
