"""Windows of a step that are taken again in smaller micro-batches where memory ran out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from training.accumulate import Window, accumulate
from training.resources.oom import HALVINGS, is_out_of_memory

if TYPE_CHECKING:
    from torch.nn import Module

    from engines.base import Engine
    from models.base import Task
    from training.data.loader import Batches
    from training.data.samples import MicroBatch
    from training.run_state import Run
    from training.units import Units


class Halving:
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
    ) -> Window | None:
        """As training.accumulate; None: the batches of this step are to be taken again. Collective.

        Raises what the forward or backward pass raised, where that cannot be mended here.
        """
        try:
            forward = self._run.stragglers.own
            return accumulate(task, engine, module, micro_batches, units, forward)
        except (MemoryError, RuntimeError) as fault:
            possible = engine.survives_a_failed_pass and self._batches.smaller is not None
            if not is_out_of_memory(fault) or not possible or self._times == HALVINGS:
                raise
            text = str(fault).partition("\n")[0] or type(fault).__name__
        # Behind the handler: until here the fault held the frames of the pass, and their tensors.
        self._times += 1
        engine.discard()
        self._run.ladder.shrink_for(text, self._run.step)
        return None
