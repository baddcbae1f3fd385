"""The attention kernels for each value of memory.attention."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial
from inspect import signature
from typing import Any

import torch
from torch.nn import Module
from torch.nn.attention import SDPBackend, sdpa_kernel

from models.base import DataError

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
