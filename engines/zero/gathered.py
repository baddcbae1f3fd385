"""Weights that ZeRO stage 3 gathers, without holding them from the forward to the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import Module, Parameter


def save_by_reference(model: Module) -> Callable[[], None]:
    """Let a forward pass of `model` save references to its parameters; returns a function to undo.

    A linear layer saves the transposed view of its weight. DeepSpeed releases the parameter after
    the layer, and gathers it again before the layer's backward pass, but the view would keep the
    memory of all layers. DeepSpeed's own remedy, `memory_efficient_linear`, rounds a layer with a
    bias twice in 16 bits.
    """
    by_address: dict[int, Parameter] = {}

    def note(module: Module, _arguments: Any) -> None:
        by_address.update((p.data_ptr(), p) for p in module.parameters(recurse=False))

    def pack(tensor: Tensor) -> Any:
        parameter = by_address.get(tensor.data_ptr())
        # Another tensor may be where a parameter was until its release.
        if parameter is None or _layout(parameter) != _layout(tensor):
            return tensor
        return parameter, tensor.size(), tensor.stride()

    def forward(*args: Any, **kwargs: Any) -> Any:
        with saved_tensors_hooks(pack, _unpack):
            result = original(*args, **kwargs)
        by_address.clear()
        return result

    # They run after those of DeepSpeed, which gather.
    owners = {m for m in model.modules() for _ in m.parameters(recurse=False)}
    hooks = [module.register_forward_pre_hook(note) for module in owners]
    original, model.forward = model.forward, forward

    def undo() -> None:
        for hook in hooks:
            hook.remove()
        model.forward = original

    return undo


def _layout(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.data_ptr(), tensor.dtype, tensor.numel()


def _unpack(saved: Any) -> Tensor:
    if isinstance(saved, Tensor):
        return saved
    parameter, size, stride = saved
    return parameter.detach().as_strided(size, stride, parameter.storage_offset())
