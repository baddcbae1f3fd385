"""Throttling steps: what all ranks do at a resource limit, so that a run need not end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from training.callbacks.base import Action
from training.resources import memory

if TYPE_CHECKING:
    from engines.base import Engine
    from training.callbacks.callback_list import CallbackList
    from training.data.loader import Batches, EvaluationBatches
    from training.step_timer import StepTimer


@dataclass(frozen=True)
class Throttle:
    """Carries out the agreed throttling steps. Collective.

    Losses do not change: the order of the data is cut into global batches, and the randomness of a
    sample comes from its index, so neither depends on workers or micro-batches. Random numbers of
    the model itself, such as dropout, are drawn per micro-batch.
    """

    engine: Engine
    callbacks: CallbackList
    timer: StepTimer
    batches: Batches
    validation: EvaluationBatches

    def run(self, actions: Action, step: int) -> bool:
        """Carry out the throttling steps in `actions` after `step` updates, and release memory.

        True: batches already taken for the next step must be taken again.
        """
        batches, validation = self.batches, self.validation
        workers = max(batches.workers, validation.workers)
        has_fewer = Action.FEWER_WORKERS in actions and workers > 0
        is_smaller = Action.SMALLER_BATCH in actions and batches.smaller is not None
        with self.timer.paused():
            if has_fewer:
                self.callbacks.event("fewer_workers", {"from": workers, "to": workers // 2})
                batches.begin(step, workers=batches.workers // 2)
                validation.use_workers(validation.workers // 2)
                workers //= 2
            if is_smaller:
                self._halve_micro_batch(step)
            memory.release_unused(self.engine.world.device)
        left = Action.FEWER_WORKERS if workers else Action.NOTHING
        self.callbacks.throttled(left | (Action.SMALLER_BATCH if batches.smaller else Action.NOTHING))
        return has_fewer or is_smaller

    def halve_for_oom(self, reason: str, step: int) -> None:
        """Halve the micro-batch: memory ran out in the step after `step` updates."""
        self.callbacks.event("out_of_memory", {"at": step + 1, "text": reason})
        with self.timer.paused():
            memory.release_unused(self.engine.world.device)
            self._halve_micro_batch(step)

    def _halve_micro_batch(self, step: int) -> None:
        smaller = self.batches.smaller
        assert smaller is not None, "only requested while available"
        facts = {"from": self.batches.micro_batch, "to": smaller}
        self.batches.begin(step, micro_batch=smaller)
        accumulation = self.batches.accumulation
        self.engine.resize(smaller, accumulation)
        self.callbacks.event("smaller_micro_batch", {**facts, "accumulation": accumulation})
