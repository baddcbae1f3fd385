"""Memory that ran out: how it is known, and what a person is told of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from training.data.loader import Batches

HALVINGS = 3
"""How often a run halves its micro-batch because memory ran out."""
_ON_A_CPU = re.compile(r"can't allocate memory|MPS backend out of memory", re.IGNORECASE)


class OutOfMemory(RuntimeError):
    """Memory ran out, and this process alone cannot go on; the text says what to write."""

    def __init__(self, fault: BaseException, batches: Batches):
        said = str(fault).partition("\n")[0] or type(fault).__name__
        size, smaller = batches.micro_batch, batches.smaller
        fix = "a smaller model, shorter samples, or  --resource-efficient"
        if smaller is not None:
            fix = f"--batch-size {smaller} --set train.global_batch={batches.global_batch}"
        super().__init__(
            f"ran out of memory with micro-batches of {size}: {said}\n  fix           write  {fix}"
        )


def is_out_of_memory(fault: BaseException) -> bool:
    """Whether `fault` tells of memory that could not be had, of the host or of a device.

    The allocators of the CPU and of mps tell so in words alone.
    """
    import torch

    if isinstance(fault, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(fault, RuntimeError) and bool(_ON_A_CPU.search(str(fault)))
