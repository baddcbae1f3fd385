"""Memory that ran out: how it is known, and what a person is told of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from training.accumulate import Accumulated, accumulate

if TYPE_CHECKING:
    from torch.nn import Module

    from engines.base import Engine
    from models.base import Task
    from training.accumulate import Units
    from training.data.loader import Batches
    from training.data.samples import MicroBatch
    from training.run_state import Run

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
            f"ran out of memory with micro-batches of {size}: {said}\n  fix           {fix}"
        )


def is_out_of_memory(fault: BaseException) -> bool:
    """Whether `fault` tells of memory that could not be had, of the host or of a device.

    The allocators of the CPU and of mps tell so in words alone.
    """
    import torch

    if isinstance(fault, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(fault, RuntimeError) and bool(_ON_A_CPU.search(str(fault)))


class OomFallback:
    """Takes windows, and where memory runs out lets the step be taken again in smaller portions.

    The micro-batch is halved and accumulation grows with it, so that the global batch stays. Only
    where the engine can: other ranks wait within a collective for one that failed.
    """

    def __init__(self, run: Run, batches: Batches):
        self._run = run
        self._batches = batches
        self._times = 0

    def accumulate(
        self,
        task: Task,
        engine: Engine,
        module: Module,
        micro_batches: Sequence[MicroBatch],
        units: Units,
    ) -> Accumulated | None:
        """As training.accumulate; None: the batches of this step are to be taken again. Collective.

        Raises what the forward or backward pass raised, where that cannot be mended here.
        """
        try:
            forward = self._run.stragglers.own
            return accumulate(task, engine, module, micro_batches, units, forward)
        except (MemoryError, RuntimeError) as fault:
            possible = engine.can_retry_step and self._batches.smaller is not None
            if not is_out_of_memory(fault) or not possible or self._times == HALVINGS:
                raise
            text = str(fault).partition("\n")[0] or type(fault).__name__
        # Behind the handler: until here the fault held the frames of the pass, and their tensors.
        self._times += 1
        engine.discard()
        self._run.throttle.shrink_for(text, self._run.step)
        return None
