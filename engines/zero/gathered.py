"""Weights that ZeRO stage 3 gathers, without holding them from the forward to the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, Parameter


class GatheredWeights:
    """Saves a reference to a parameter for the backward pass, where autograd would save its memory.

    A linear layer saves the transposed view of its weight. DeepSpeed releases the parameter after
    the layer, and gathers it again before the layer's backward pass, but the view would keep the
    memory of all layers. DeepSpeed's own remedy, `memory_efficient_linear`, rounds a layer with a
    bias twice in 16 bits.
    """

    def __init__(self, model: Module):
        self._by_address: dict[int, Parameter] = {}
        owners = [m for m in model.modules() if next(m.parameters(recurse=False), None) is not None]
        # They run after those of DeepSpeed, which gather.
        self._hooks = [m.register_forward_pre_hook(self._note) for m in owners]
        self._model, self._forward = model, model.forward
        model.forward = partial(self._call, self._forward)  # type: ignore[method-assign]

    def _note(self, module: Module, _arguments: Any) -> None:
        for parameter in module.parameters(recurse=False):
            self._by_address[parameter.data_ptr()] = parameter

    def _call(self, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with self._saving():
            return forward(*args, **kwargs)

    def _saving(self) -> AbstractContextManager[Any]:
        return torch.autograd.graph.saved_tensors_hooks(self._pack, _unpack)

    def _pack(self, tensor: Tensor) -> Any:
        parameter = self._by_address.get(tensor.data_ptr())
        # Another tensor may be where a parameter was until its release.
        if (
            parameter is None
            or parameter.data_ptr() != tensor.data_ptr()
            or (parameter.dtype, parameter.numel()) != (tensor.dtype, tensor.numel())
        ):
            return tensor
        return parameter, tensor.size(), tensor.stride()

    def close(self) -> None:
        """Remove the hooks from the model."""
        for hook in self._hooks:
            hook.remove()
        self._model.forward = self._forward  # type: ignore[method-assign]


def _unpack(saved: Any) -> Tensor:
    if isinstance(saved, Tensor):
        return saved
    parameter, size, stride = saved
    return parameter.detach().as_strided(size, stride, parameter.storage_offset())
