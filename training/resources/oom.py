"""Out of memory: how it is detected, and the fallback to smaller micro-batches within a step."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from torch.nn import Module

    from engines.base import Engine

MAX_HALVINGS = 3
"""How often a run halves its micro-batch because memory ran out.

Later steps take those that throttle.halve_for_oom sets. Where ranks have ended,
launcher/run/restart.py starts them again with smaller ones.
"""
_MESSAGES = re.compile(
    r"can't allocate memory|cannot allocate memory|std::bad_alloc|\bMemoryError\b"
    r"|MPS backend out of memory|CUDA error: out of memory"
    r"|_STATUS_(ALLOC_FAILED|INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED)"  # cuBLAS, cuDNN, ...
    r"|Cuda failure (\d+ )?'out of memory'",  # NCCL
    re.IGNORECASE,
)
T = TypeVar("T")


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
        size, smaller = batches.micro_batch, batches.smaller
        self.micro_batch = size
        fix = "a smaller model, shorter samples, or  --resource-efficient"
        if smaller is not None:
            fix = f"--batch-size {smaller} --set train.global_batch={batches.global_batch}"
        super().__init__(
            f"out of memory with a micro-batch of {size}: {_first_line(error)}\n  fix           {fix}"
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


class OomFallback:
    """Halves the micro-batch when a forward or backward pass runs out of memory.

    Accumulation grows with it, so that the global batch stays. Only if the engine can retry a step:
    other ranks would wait in a collective for a rank that failed.
    """

    def __init__(
        self, engine: Engine, module: Module, batches: BatchSizes, halve: Callable[[str, int], None]
    ):
        """`halve` halves the micro-batch, given a reason and the updates so far."""
        self._engine, self._batches, self._halve = engine, batches, halve
        self._buffers = [
            (owner, name)
            for owner in module.modules()
            for name, _ in owner.named_buffers(recurse=False)
            if name not in owner._non_persistent_buffers_set  # constants
        ]
        self._halvings = 0

    def run(self, accumulate: Callable[[], T], step: int) -> T | None:
        """Call `accumulate`; None: out of memory, take the batches of this step again. Collective.

        `step` updates are done. Raises what `accumulate` raises if there is no fallback.
        """
        possible = self._engine.can_retry_step and self._batches.smaller is not None
        changing = [place for place in self._buffers if possible and place[0].training]
        tensors = [getattr(owner, name) for owner, name in changing]
        copies = [tensor.clone() for tensor in tensors]
        try:
            return accumulate()
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error) or not possible or self._halvings == MAX_HALVINGS:
                raise
            reason = _first_line(error)
        # After the handler: until here the error held the frames of the pass, and their tensors.
        self._halvings += 1
        self._engine.discard()
        for (owner, name), tensor, copy in zip(changing, tensors, copies, strict=True):
            # Statistics and counters: the failed pass was none.
            setattr(owner, name, tensor.copy_(copy))
        self._halve(reason, step)
        return None


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
