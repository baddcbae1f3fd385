"""What all ranks do, rung by rung, so that a run need not end at a limit of one rank's machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from training.callbacks.base import RUNGS, Action
from training.resources import memory

if TYPE_CHECKING:
    from engines.base import Engine
    from training.callbacks.callback_list import CallbackList
    from training.data.loader import Batches, EvaluationBatches
    from training.step_metrics import RunMetrics


class Throttle:
    """Carries out what was agreed on, lets every rank measure, and goes on until none asks.

    Collective. Losses stay what they are: the order of the data is cut into global batches, and
    the randomness of a sample comes from its index, so that neither knows of workers or
    micro-batches. What a model draws itself, such as dropout, is drawn a micro-batch at a time.
    """

    def __init__(
        self,
        engine: Engine,
        audience: CallbackList,
        record: RunMetrics,
        batches: Batches,
        judged: EvaluationBatches,
    ) -> None:
        self._engine = engine
        self._audience = audience
        self._record = record
        self._batches = batches
        self._judged = judged

    def climb(self, asked: Action, step: int) -> tuple[Action, bool]:
        """Do what is `asked` of RUNGS after `step` updates, and what that leads to.

        Gives what is asked at last, no rung any more, and whether batches were begun anew: those
        that were taken for the next step are then to be taken again.
        """
        began_anew = False
        with self._record.paused():
            while rungs := asked & RUNGS:
                began_anew |= self._carry_out(rungs & self._left(), step)
                memory.release_unused(self._engine.world.device)
                own = self._audience.relieved(self._left())
                asked = asked & ~RUNGS | Action(self._engine.world.agree(int(own)))
        return asked, began_anew

    def shrink_for(self, reason: str, step: int) -> None:
        """Halve the micro-batch, as memory ran out in the step after `step` updates."""
        self._audience.event("out_of_memory", {"at": step + 1, "text": reason})
        with self._record.paused():
            memory.release_unused(self._engine.world.device)
            self._shrink(step)

    def _shrink(self, step: int) -> None:
        smaller = self._batches.smaller
        assert smaller is not None, "nobody asks for what is not left"
        facts = {"from": self._batches.micro_batch, "to": smaller}
        self._batches.begin(step, micro_batch=smaller)
        accumulation = self._batches.accumulation
        self._engine.resize(smaller, accumulation)
        self._audience.event("smaller_micro_batch", {**facts, "accumulation": accumulation})

    def _carry_out(self, rungs: Action, step: int) -> bool:
        if Action.FEWER_WORKERS in rungs:
            before = max(one.workers for one in self._preparing)
            self._audience.event("fewer_workers", {"from": before, "to": before // 2})
            self._batches.begin(step, workers=self._batches.workers // 2)
            self._judged.use_workers(self._judged.workers // 2)
        if Action.SMALLER_BATCH in rungs:
            self._shrink(step)
        return bool(rungs & (Action.FEWER_WORKERS | Action.SMALLER_BATCH))

    @property
    def _preparing(self) -> Sequence[Batches | EvaluationBatches]:
        return self._batches, self._judged

    def _left(self) -> Action:
        """The same on every rank: all began alike and changed alike."""
        left = Action.RELIEF
        if any(one.workers for one in self._preparing):
            left |= Action.FEWER_WORKERS
        if self._batches.smaller is not None:
            left |= Action.SMALLER_BATCH
        return left
