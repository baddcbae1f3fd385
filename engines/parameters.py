"""Which parameters, buffers and models an engine can train, and what parameters do beside."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Embedding, EmbeddingBag, Module, Parameter
from torch.nn.parameter import is_lazy

from gearshift.engines.base import Blocks, EngineError
from gearshift.engines.catalog import ENGINES, Entry, Placement
from gearshift.engines.state import read_buffers, stored_buffers


def with_dense_tensors(build: Callable[[], Module]) -> Module:
    """The model of `build`, with dense gradients: the optimizers of no engine take sparse ones.

    Its persistent buffers have memory for each element.

    Raises EngineError for a parameter or buffer without a shape, or a sparse one.
    """
    model = build()
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor):
            raise EngineError(
                f"'{name}' has no shape before the first batch; call the model with a sample in "
                "build(), or give its module the number of inputs"
            )
        if tensor.layout is not torch.strided:
            raise EngineError(
                f"'{name}' is a sparse tensor, which no engine sends; keep it dense, and make the "
                "sparse one in forward()"
            )
    for module, name in stored_buffers(model).values():
        buffer = getattr(module, name)
        # Nothing can be read into one that has an element in several places, as of expand().
        if type(buffer) is Tensor and torch._debug_has_internal_overlap(buffer):
            setattr(module, name, buffer.contiguous().clone())
    for module in model.modules():
        if isinstance(module, Embedding | EmbeddingBag):
            module.sparse = False
    return model


def check_parameters(
    model: Module,
    blocks: Blocks,
    engine: str,
    processes: int,
    storable: Collection[torch.dtype],
    device: str = "cpu",
) -> None:
    """Raise EngineError for what `engine` does not train as it is; it names engines that do.

    Weights are float32 in most models; other types, and several of them, need some engines; so do
    gradient hooks of parameters, weights that change where they are read, and tensors that share
    memory. `storable`: what a checkpoint can hold. `device`: the type of the one that trains.
    """
    buffers = read_buffers(stored_buffers(model))
    for name, tensor in (*model.named_parameters(), *buffers.items()):
        if tensor.dtype not in storable:
            raise EngineError(
                f"'{name}' is {_type(tensor)}, which checkpoints do not hold; keep it in another "
                "type (of complex numbers what torch.view_as_real makes of them), or as a buffer "
                "with persistent=False, which build() computes again"
            )
    shared = _shared_memory(model, device)
    reason = _reason(model, blocks, ENGINES[engine], processes, shared)
    if reason is None:
        return

    def can_train(entry: Entry, processes: int) -> bool:
        return _reason(model, blocks, entry, processes, shared) is None

    able = engines_that(can_train, processes)
    raise EngineError(f"{reason}; engines that train it: {able}")


def engines_that(can_train: Callable[[Entry, int], bool], processes: int) -> str:
    """The names of the engines that can, with `processes` or as many as they have; or "none"."""
    names = []
    for name, entry in ENGINES.items():
        if can_train(entry, entry.processes or processes):
            names.append(f"{name} with one process" if entry.processes else name)
    return ", ".join(names) or "none"


def _reason(
    model: Module,
    blocks: Blocks,
    entry: Entry,
    processes: int,
    shared: Sequence[tuple[str, str, bool]],
) -> str | None:
    """Why an engine cannot train `model`; None: it can."""
    named = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.numel():
            named[name] = parameter
    for name, parameter in named.items():
        what = f"engine {entry.name} does not train parameter '{name}'"
        if parameter.dtype is torch.float16 and not entry.has_fp32_copies:
            return (
                f"parameter '{name}' is float16, which loses most updates; keep weights in float32 "
                "and compute with  --precision fp16"
            )
        if parameter.dtype is torch.float64 and entry.has_fp32_copies:
            return f"{what} in float64: it would round it to float32"
        for method in gradient_hooks(parameter):
            if method not in entry.gradient_hooks:
                return f"{what} with the hook of its {method}, which it would lose"
    for name, other, stays in shared:
        if not stays or entry.placement != Placement():
            return (
                f"engine {entry.name} does not train '{name}' and '{other}' as one, though they "
                "share memory; let both modules have the same Parameter, as in  a.weight = b.weight"
            )
    # What a forward pass changes in a weight stays only if one process updates the weight itself.
    is_whole = entry.placement.weights == "replicated" and not entry.has_fp32_copies
    if processes > 1 or not is_whole:
        for name, module in model.named_modules():
            if isinstance(module, Embedding | EmbeddingBag) and module.max_norm is not None:
                weight = f"{name}.weight".lstrip(".")
                return (
                    f"engine {entry.name} does not train parameter '{weight}' with max_norm, "
                    "which changes rows where they are read, on each process others"
                )
    block_of: dict[Parameter, Module] = {}
    if entry.types_by_block:
        for block in reversed(blocks):
            block_of |= dict.fromkeys(block.parameters(), block)
    first_of: dict[Module | None, Parameter] = {}
    for name, parameter in named.items():
        first = first_of.setdefault(block_of.get(parameter), parameter)
        types = {_type(parameter), _type(first)}
        if len(types) > 1 and not types <= entry.mixed_types:
            return (
                f"engine {entry.name} does not train parameter '{name}', which is "
                f"{_type(parameter)}, together with others that are {_type(first)}"
            )
    return None


def _shared_memory(model: Module, device: str) -> list[tuple[str, str, bool]]:
    """The names of each tensor and of a parameter that has elements of the same memory.

    Then whether they still share it after they were moved to a `device` and made contiguous.
    """
    by_storage = defaultdict(list)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if type(tensor) in (Tensor, Parameter) and tensor.numel() and not tensor.is_meta:
            by_storage[tensor.untyped_storage().data_ptr()].append((name, tensor))
    shared = []
    for members in by_storage.values():
        memory = np.empty(members[0][1].untyped_storage().nbytes(), np.uint8)
        for (name, first), (other, second) in combinations(members, 2):
            is_trained = isinstance(first, Parameter) or isinstance(second, Parameter)
            if is_trained and np.shares_memory(_as_in(memory, first), _as_in(memory, second)):
                are_contiguous = first.is_contiguous() and second.is_contiguous()
                shared.append((name, other, are_contiguous and first.device.type == device))
    return shared


def _as_in(memory: NDArray[Any], tensor: Tensor) -> NDArray[Any]:
    """The elements of `memory` that `tensor` has in its storage."""
    size = tensor.itemsize
    strides = [stride * size for stride in tensor.stride()]
    return np.ndarray(tensor.shape, f"V{size}", memory, tensor.storage_offset() * size, strides)


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def gradient_hooks(parameter: Tensor) -> dict[str, dict[int, Any]]:
    """The gradient hooks of `parameter`, by the method that registered them.

    In the dictionaries that autograd reads.
    """
    hooks: dict[str, Any] = {
        "register_hook": parameter._backward_hooks,
        "register_post_accumulate_grad_hook": parameter._post_accumulate_grad_hooks,
    }
    return {method: registered for method, registered in hooks.items() if registered}


def is_sharded(tensor: Tensor) -> bool:
    """Whether `tensor` is a DTensor. Without importing them: that takes half a second."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)
