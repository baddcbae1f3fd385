"""Throttling steps: what all ranks do at a resource limit, so that a run need not end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from training.callbacks.base import THROTTLING, Action
from training.resources import memory

if TYPE_CHECKING:
    from engines.base import Engine
    from training.callbacks.callback_list import CallbackList
    from training.data.loader import Batches, EvaluationBatches
    from training.step_timer import StepTimer


class Throttle:
    """Carries out the agreed throttling steps, lets every rank measure, and repeats. Collective.

    Losses do not change: the order of the data is cut into global batches, and the randomness of a
    sample comes from its index, so neither depends on workers or micro-batches. Random numbers of
    the model itself, such as dropout, are drawn per micro-batch.
    """

    def __init__(
        self,
        engine: Engine,
        callbacks: CallbackList,
        timer: StepTimer,
        batches: Batches,
        validation: EvaluationBatches,
    ) -> None:
        self._engine, self._callbacks, self._timer = engine, callbacks, timer
        self._batches, self._validation = batches, validation

    def run(self, actions: Action, step: int) -> tuple[Action, bool]:
        """Carry out the throttling steps in `actions` after `step` updates, and their followers.

        Returns the remaining actions, without throttling steps, and whether batches were restarted:
        those already taken for the next step must then be taken again.
        """
        restarted = False
        with self._timer.paused():
            while steps := actions & THROTTLING:
                restarted |= self._carry_out(steps & self._available(), step)
                memory.release_unused(self._engine.world.device)
                requested = self._callbacks.throttled(self._available())
                actions = actions & ~THROTTLING | Action(self._engine.world.agree(int(requested)))
        return actions, restarted

    def halve_for_oom(self, reason: str, step: int) -> None:
        """Halve the micro-batch: memory ran out in the step after `step` updates."""
        self._callbacks.event("out_of_memory", {"at": step + 1, "text": reason})
        with self._timer.paused():
            memory.release_unused(self._engine.world.device)
            self._halve_micro_batch(step)

    def _halve_micro_batch(self, step: int) -> None:
        smaller = self._batches.smaller
        assert smaller is not None, "only requested while available"
        facts = {"from": self._batches.micro_batch, "to": smaller}
        self._batches.begin(step, micro_batch=smaller)
        accumulation = self._batches.accumulation
        self._engine.resize(smaller, accumulation)
        self._callbacks.event("smaller_micro_batch", {**facts, "accumulation": accumulation})

    def _carry_out(self, steps: Action, step: int) -> bool:
        if Action.FEWER_WORKERS in steps:
            before = self._max_workers()
            self._callbacks.event("fewer_workers", {"from": before, "to": before // 2})
            self._batches.begin(step, workers=self._batches.workers // 2)
            self._validation.use_workers(self._validation.workers // 2)
        if Action.SMALLER_BATCH in steps:
            self._halve_micro_batch(step)
        return bool(steps & (Action.FEWER_WORKERS | Action.SMALLER_BATCH))

    def _max_workers(self) -> int:
        return max(self._batches.workers, self._validation.workers)

    def _available(self) -> Action:
        """The steps that are left; the same on every rank, as all start and change together."""
        left = Action.FREE_MEMORY
        if self._max_workers():
            left |= Action.FEWER_WORKERS
        if self._batches.smaller is not None:
            left |= Action.SMALLER_BATCH
        return left
