"""Dropout, frozen parts, operations of a model, and the kernels of memory.attention."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Module, ModuleList
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from gearshift.models.base import DataError

_STEPS = 2**16
"""Random 16-bit integers decide, so the probability is a multiple of 1 / 65536."""


class Dropout(nn.Dropout):
    """`torch.nn.Dropout`, which on a CPU draws one random number for four elements.

    torch draws a 64-bit number for each element there, which took an eighth of a training step of
    the abr model. The probability is rounded to 16 bits, and kept elements are scaled by exactly
    its inverse. On other devices, and compiled, it is torch's own.
    """

    def forward(self, x: Tensor) -> Tensor:
        """A tensor like `x`, of any shape, with elements set to 0 in training mode."""
        dropped = round(self.p * _STEPS)
        is_drawn = self.training and dropped not in (0, _STEPS)
        if not is_drawn or x.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(x)
        size = x.numel()
        wide = torch.empty((size + 3) // 4, dtype=torch.int64)
        wide.random_(-(2**63), None)
        numbers = wide.view(torch.int16)[:size].view(x.shape)
        mask = numbers >= dropped - _STEPS // 2
        return x * (_STEPS / (_STEPS - dropped)) * mask


class HasFrozenParts(nn.Module):
    """A model whose parts can be frozen: no training, dropout or running statistics."""

    frozen: tuple[nn.Module, ...] = ()  # a tuple, so that they are not registered twice

    def freeze(self, *parts: nn.Module) -> None:
        """Freeze these parts of the model, and no others."""
        self.frozen = parts
        for part in parts:
            part.requires_grad_(False)
            part.eval()

    def train_only(self, *parts: nn.Module) -> None:
        """Freeze all but these children."""
        self.freeze(*(child for child in self.children() if child not in parts))
        for parameter in self.parameters(recurse=False):
            parameter.requires_grad_(False)

    def train(self, mode: bool = True) -> HasFrozenParts:
        """As for any module, except that frozen parts stay in evaluation mode."""
        super().train(mode)
        for part in self.frozen:
            part.eval()
        return self


@torch.no_grad()
def count_flops(model: Module, inputs: Sequence[Any], frozen: Sequence[str]) -> float:
    """Floating point operations of forward and backward: 3 times the forward pass.

    The parts named `frozen` have no backward. As counted by torch. Collective if the model is
    sharded.
    """
    device = next(model.parameters()).device
    training = model.training
    model.eval()  # draws nothing from the generator that training draws from
    try:
        # Compiled blocks would be uncompiled from then on: torch leaves them alone in such a mode.
        eager = torch.compiler.set_stance("force_eager")
        counter = FlopCounterMode(display=False)
        # torch does not count the fused kernel of a CPU.
        with eager, attention_kernel("math" if device.type == "cpu" else "auto"), counter:
            model(*(x.to(device) if isinstance(x, Tensor) else x for x in inputs))
    finally:
        model.train(training)
    counts = counter.get_flop_counts()
    without = 0
    for name in frozen:
        part = model.get_submodule(name)
        names = [name]
        if isinstance(part, ModuleList):
            names = [f"{name}.{number}" for number in range(len(part))]
        for module in names:
            without += sum(counts[f"{type(model).__name__}.{module}"].values())
    return 3.0 * counter.get_total_flops() - 2.0 * without


KERNELS = {
    # On CUDA, flash supports neither masks nor fp32: such calls fall back to the efficient
    # kernel, and where that cannot run either, to the plain one. See takes_boundaries.
    "flash": [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH],
    "efficient": [SDPBackend.EFFICIENT_ATTENTION],
    "cudnn": [SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH],
    "math": [SDPBackend.MATH],
}
"""By value of memory.attention, the first that can run; `auto` leaves the choice to torch."""


def attention_kernel(name: str) -> AbstractContextManager[None]:
    """Restrict attention inside the context to the kernel `name`, a value of memory.attention."""
    if name == "auto":
        return nullcontext()
    return sdpa_kernel(KERNELS[name], set_priority=name == "cudnn")  # which torch tries last


def restrict_blocks(blocks: Iterable[Module], name: str) -> None:
    """Restrict attention in `blocks` to the kernel `name`, also where one is recomputed.

    A context around the model would have ended before the backward pass. Only the instances'
    `forward` is replaced: no module is added, no name changes.
    """
    if name != "auto":
        for block in blocks:
            block.forward = partial(_restricted, name, block.forward)


def _restricted(name: str, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    with attention_kernel(name):
        return forward(*args, **kwargs)


def modules_of(model: Module, classes: Iterable[str]) -> list[Module]:
    """The modules of `model` whose class has one of these names, in order.

    By name: those of transformers are elsewhere in other versions.
    """
    names = set(classes)
    return [module for module in model.modules() if type(module).__name__ in names]


def check_kernel(name: str, device: torch.device) -> None:
    """Raise DataError if `device` has no kernel of that name."""
    if name in ("efficient", "cudnn") and device.type != "cuda":
        raise DataError(
            f"memory.attention '{name}' has no kernel on {device.type}",
            where="memory.attention",
            allowed="auto, flash, math",
            fix="--set memory.attention=auto",
        )


def takes_boundaries(name: str, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether kernel `name` keeps attention within documents by their boundaries, without a mask.

    True for flash attention on CUDA from compute capability 8.0, in 16 bits, since torch 2.11.
    """
    if device.type != "cuda" or dtype not in (torch.float16, torch.bfloat16):
        return False
    able = torch.cuda.get_device_capability(device) >= (8, 0)
    return name in ("auto", "flash") and able and _has_variable_lengths()


@cache
def _has_variable_lengths() -> bool:
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return False
    return "window_size" in signature(varlen_attn).parameters
