"""Out of memory: how it is detected, and the error with its fix."""

from __future__ import annotations

import errno
import re
from typing import Protocol

MAX_HALVINGS = 3
"""How often a run halves its micro-batch because memory ran out.

Where ranks have ended, launcher/run/restart.py starts them again with smaller ones.
"""
_MESSAGES = re.compile(
    r"can't allocate memory|cannot allocate memory|std::bad_alloc|\bMemoryError\b"
    r"|MPS backend out of memory|CUDA error: out of memory"
    r"|_STATUS_(ALLOC_FAILED|INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED)"  # cuBLAS, cuDNN, ...
    r"|Cuda failure (\d+ )?'out of memory'",  # NCCL
    re.IGNORECASE,
)


class BatchSizes(Protocol):
    """The batch numbers of the training batches."""

    @property
    def global_batch(self) -> int: ...
    @property
    def micro_batch(self) -> int: ...
    @property
    def smaller(self) -> int | None:
        """The next smaller micro-batch; None: there is none."""


class OutOfMemory(RuntimeError):
    """Memory ran out and this process alone cannot continue; the message has the fix."""

    def __init__(self, error: BaseException, batches: BatchSizes):
        size = batches.micro_batch
        smaller = batches.smaller
        self.micro_batch = size
        fix = "a smaller model, shorter samples, or  --resource-efficient"
        if smaller is not None:
            fix = f"--batch-size {smaller} --set train.global_batch={batches.global_batch}"
        super().__init__(
            f"out of memory with a micro-batch of {size}: {first_line(error)}\n  fix           {fix}"
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` is a failed allocation, on the host or on a device.

    The allocators of the CPU and of mps, CUDA's libraries and NCCL only say so in their message;
    so does the failed write of a checkpoint.
    """
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and bool(_MESSAGES.search(str(error)))


def first_line(error: BaseException) -> str:
    """The first line of its message, or else the name of its type."""
    return str(error).partition("\n")[0] or type(error).__name__
