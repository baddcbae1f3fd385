"""The attention kernels that a value of memory.attention allows."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from models.base import DataError

KERNELS = {
    # On CUDA flash takes no mask and no fp32: what has those goes to the efficient kernel, and
    # what that cannot do either to the plain one.
    "flash": [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH],
    "efficient": [SDPBackend.EFFICIENT_ATTENTION],
    "math": [SDPBackend.MATH],
}
"""By value of memory.attention; `auto` leaves the choice to torch."""


def attention_kernel(kernel: str) -> AbstractContextManager[None]:
    """Attention inside uses `kernel`, a value of memory.attention."""
    return nullcontext() if kernel == "auto" else sdpa_kernel(KERNELS[kernel])


def check_kernel(kernel: str, device: torch.device) -> None:
    """Raises DataError if `device` has no kernel of that name."""
    if kernel == "efficient" and device.type != "cuda":
        raise DataError(
            f"memory.attention 'efficient' has no kernel on {device.type}",
            where="memory.attention",
            allowed="auto, flash, math",
            fix="--set memory.attention=auto",
        )
