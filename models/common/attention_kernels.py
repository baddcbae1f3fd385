"""The attention kernels for each value of memory.attention."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from models.base import DataError

KERNELS = {
    # On CUDA, flash supports neither masks nor fp32: such calls fall back to the efficient
    # kernel, and where that cannot run either, to the plain one.
    "flash": [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH],
    "efficient": [SDPBackend.EFFICIENT_ATTENTION],
    "math": [SDPBackend.MATH],
}
"""By value of memory.attention; `auto` leaves the choice to torch."""


def attention_kernel(name: str) -> AbstractContextManager[None]:
    """Restrict attention inside the context to the kernel `name`, a value of memory.attention."""
    return nullcontext() if name == "auto" else sdpa_kernel(KERNELS[name])


def check_kernel(name: str, device: torch.device) -> None:
    """Raise DataError if `device` has no kernel of that name."""
    if name == "efficient" and device.type != "cuda":
        raise DataError(
            f"memory.attention 'efficient' has no kernel on {device.type}",
            where="memory.attention",
            allowed="auto, flash, math",
            fix="--set memory.attention=auto",
        )
