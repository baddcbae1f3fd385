"""One run as the loop sees it: what is due, what hooks ask, what is kept, how it ends."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from training import stop_reason
from training.accumulate import total_units
from training.agreement import agree
from training.callbacks.base import RUNGS, Action, Callback, Outcome, Step
from training.callbacks.callback_list import CallbackList
from training.checkpoint.controller import CheckpointController
from training.evaluation.evaluator import Evaluator
from training.inspection import Preview, shapes, untrained
from training.optim.updater import Updater
from training.resources.memory import PeakMemory
from training.resources.throttle import Throttle
from training.step_metrics import RunMetrics
from training.stragglers import Stragglers

if TYPE_CHECKING:
    from torch.nn import Module

    from engines.base import Engine, Update
    from models.base import Task
    from training.accumulate import Accumulated, Units
    from training.checkpoint.manifest import Score
    from training.checkpoint.resume_point import ResumePoint
    from training.checkpoint.writer import CheckpointWriter
    from training.data.loader import Batches, EvaluationBatches
    from training.data.samples import MicroBatch
    from training.evaluation.evaluate import Forgetting
    from training.settings import Settings
    from training.stop_reason import StopReason
    from training.train_plan import TrainPlan

_NONFINITE = 1 << 9
_SAVED = 1 << 10
"""Flags of the loop's own, above those of Ask."""


class Run:
    """What surrounds the steps. Collective: all methods but `fail`."""

    def __init__(
        self,
        settings: Settings,
        train_plan: TrainPlan,
        callbacks: Sequence[Callback],
        validation: EvaluationBatches,
        saver: CheckpointWriter,
        kept: Mapping[str, Any],
        before: ResumePoint | None = None,
        peaks: PeakMemory | None = None,
        forgetting: Forgetting | None = None,
    ):
        """`kept` goes into every checkpoint; `before` is what the run goes on from.

        `peaks` has counted memory since before all was built, `forgetting` judges an experience. The
        engine has the state of `before` already. Raises ValueError where a length is none.
        """
        self._peaks = peaks or PeakMemory()
        self.step = train_plan.first_step
        """Updates taken, skipped ones counted."""
        self._budget = train_plan
        self._audience = CallbackList(callbacks)
        self.updater = Updater(settings, train_plan)
        """What the loop takes its updates by."""
        self._judge = Evaluator(settings, validation, forgetting, train_plan.data_start)
        self._validation = validation
        self._record = RunMetrics(
            train_plan, settings.log.every, settings.precision, settings.train.timing
        )
        self._saves = CheckpointController(
            settings.save, saver, self._audience, train_plan.first_step
        )
        self._evaluates_last = settings.eval.last
        self._kept, self._before = kept, before
        self._preview, self._is_debug = Preview(settings, self._audience), settings.train.debug
        self.stragglers = Stragglers(settings.log, self._audience)
        self._asks, self._met_nonfinite = Action.NOTHING, False
        self._ending: StopReason | None = None
        self._evaluated_at: int | None = None
        self._hooks_listen, self._began = False, time.perf_counter()
        if before:
            self._resume(before)

    def start(self, task: Task, engine: Engine, module: Module, batches: Batches) -> None:
        """Tell the hooks, and look at the model as it is. Raises SettingError."""
        self._task, self._engine, self._module = task, engine, module
        self._preview.start(task, module, engine, self.updater)
        self.throttle = Throttle(engine, self._audience, self._record, batches, self._validation)
        module.train()
        self._judge.start(task, module, engine.world)  # before the hooks write anything
        self._hooks_listen = True
        self._audience.start(self._budget)
        for text in self.updater.warnings:
            self._audience.event("warning", {"text": text})
        self.updater.start(engine, self._before)
        self._judge.look_before(module, engine.world, self.updater.averaged(engine))
        if self._before:
            self._before.tell(self._audience.event)
        if self.step == 0:
            self._preview.text("before")
        if reason := self._judge.reason_to_stop:  # the checkpoint was the last one
            self._ending = stop_reason.stopped_early(reason)
        self.stragglers.start(engine, module, self.step)
        self._record.start(engine.world.device)

    @property
    def is_over(self) -> bool:
        """No step is to be taken any more."""
        return self._ending is not None or self.step >= self._budget.last_step

    def agree(self, micro_batches: Sequence[MicroBatch]) -> tuple[Units, Action]:
        """Units of the global batch, and what hooks of any rank asked for since the last time."""
        if self._is_debug and self.step == self._budget.first_step:
            self._audience.event("first_batch", shapes(micro_batches[0].batch))
        flags = int(self._asks) | (_NONFINITE if self._met_nonfinite else 0)
        flags |= _SAVED if self._saves.has_news else 0
        self._asks = Action.NOTHING
        own = total_units(micro_batch.num_units for micro_batch in micro_batches)
        units, agreed, times = agree(self._engine.world, own, flags, self.stragglers.tell())
        self.stragglers.hear(times)
        if not agreed:
            return units, Action.NOTHING
        if agreed & _NONFINITE:
            self._fail_nonfinite()
            return units, Action.NOTHING
        if agreed & _SAVED:
            self._saves.settle()
        asked = Action(agreed & ~_SAVED)
        self._ending = stop_reason.asked_for(asked)
        if self._ending and self._ending.is_resumable and not self._saves.on_signal:
            asked &= ~Action.SAVE
        return units, asked

    def record(self, window: Accumulated, update: Update, data_s: float) -> None:
        """Take note of a step, tell the hooks, and log where it is time."""
        self.step += 1
        step = Step(
            step=self.step,
            loss=window.loss,
            parts=window.parts,
            units=window.units,
            norm=update.norm,
            lr=self.updater.lr,
            skipped=update.skipped,
            loss_scale=update.loss_scale,
            data_s=data_s,
        )
        if self.step == self._budget.first_step + 1:
            for kind, facts in untrained(self._engine):
                self._audience.event(kind, facts)
        if update.skipped and update.loss_scale is None:
            self._audience.event("skipped", {"step": self.step, "units": window.units})
        self._asks |= self._audience.step(step)
        is_due = self._record.add(step)
        if is_due:
            line = self._record.line(self._engine.world)
            self._audience.logged(line)
            self.stragglers.note(line)
        if is_due or self.updater.nonfinite.is_due(self._engine.world.device):
            self._met_nonfinite = self.updater.nonfinite.met()

    def due(self) -> Action:
        """What the cadences of the settings want after this step; the last one is for `finish`."""
        is_last = self.step >= self._budget.end_step
        return Action.NOTHING if is_last else self._due()

    def _due(self) -> Action:
        due = Action.EVALUATE if self._budget.evaluates_at(self.step) else Action.NOTHING
        return due | Action.SAVE if self._budget.saves_at(self.step) else due

    def relieve(self, asked: Action) -> bool:
        """Give back what can be given back; true: batches that were taken are to be taken again."""
        asks, began_anew = self.throttle.run(asked & RUNGS, self.step)
        self._asks |= asks
        return began_anew or bool(asks)

    def evaluate(self) -> None:
        """Evaluate on the validation split; save the best; end a run that no longer improves."""
        if self._evaluated_at == self.step or not self._is_sound():
            return
        with self._record.paused():
            with self.updater.averaged(self._engine):
                world = self._engine.world
                found = self._judge.evaluate(self._task, self._module, world, self.step)
            self._evaluated_at = self.step
            for evaluation in found:
                self._asks |= self._audience.evaluated(evaluation)
            self._preview.predictions(self.step)
        reason = self._judge.reason_to_stop
        if reason and not self.is_over:
            self._ending = stop_reason.stopped_early(reason)
        if self._judge.score is not None:
            self._write(self._judge.score)

    def save(self) -> None:
        """Write a checkpoint, unless this step has one."""
        if self._saves.at != self.step and self._is_sound():
            self._write(None)

    def finish(self) -> Outcome:
        """Log, evaluate and save what is left, and tell the hooks how it ended."""
        if self._ending is None and self.step < self._budget.end_step:
            self._ending = stop_reason.REPLAYED
            self.save()
        elif self._ending is not None and self._ending.is_resumable:
            # Not logged: a run that is stopped and goes on leaves the lines of one that was not.
            if self._saves.on_signal:
                self.save()
        else:
            self._complete()
        self._saves.settle()
        how = self._ending or stop_reason.reached(self.step, self._budget.total_steps)
        return self._end(how, self._peaks.maximum(self._engine.world))

    def _complete(self) -> None:
        if self._record.is_behind:
            self._audience.logged(self._record.line(self._engine.world))
        if self._evaluates_last or self._budget.evaluates_at(self.step):
            self.evaluate()
        if self._saves.last or self._is_periodic or self._budget.until is not None:
            self.save()
        if self._is_sound():
            self._preview.predictions(self.step)
            self._judge.tell_learnt(self._audience.event)
            self._saves.load_best(self._judge.best, self.step, self._engine, self.updater)
            self._preview.text("after")
        if self._ending is None or not self._ending.exit_code:
            self._ending = self._judge.leak(self._task, self._audience.event) or self._ending

    @property
    def _is_periodic(self) -> bool:
        return self._budget.saves_at(self.step)

    def fail(self, fault: BaseException) -> None:
        """Tell the hooks that `fault` ends the run, unless they know of an end. Not collective."""
        self._saves.abandon()
        how = stop_reason.failed(f"{type(fault).__name__}: {fault}")
        self._end(how, self._peaks.local(self._engine.world.device))

    def _resume(self, before: ResumePoint) -> None:
        self._record.resume(before.fact("record", {"units": before.fact("units")}))
        self._evaluated_at = self._preview.shown_at = before.fact("evaluated_at")
        self._began -= before.fact("wall_s", 0.0)
        if "data" not in before.reset:  # what was measured on other data is no best to beat
            self._judge.resume(before.fact("judge"))

    def _write(self, score: Score | None) -> None:
        with self._record.paused():
            state, average = self._engine.state(), self.updater.average
            self._saves.write(
                self.step,
                average.joined(state) if average else state,
                self._facts(),
                periodic=self._is_periodic,
                score=score,
            )

    def _is_sound(self) -> bool:
        """Nothing that is not finite was met, on any rank: the weights may be judged and kept."""
        if self._ending is not None and self._ending.status == "failed":
            return False
        if self._engine.world.agree(int(self.updater.nonfinite.met())):
            self._fail_nonfinite()
            return False
        return True

    def _fail_nonfinite(self) -> None:
        self._ending = stop_reason.failed(self.updater.nonfinite.describe(self._engine.world))

    def _facts(self) -> dict[str, Any]:
        """What a checkpoint keeps beside the state, and `before` takes."""
        return {
            **self._budget.facts(self.step),
            "units": self._record.units,
            "wall_s": time.perf_counter() - self._began,
            "best": self._judge.best,
            "judge": self._judge.facts(),
            "evaluated_at": self._evaluated_at,
            "record": self._record.facts(),
            "nonfinite": self.updater.nonfinite.facts(),
            **self._kept,
        }

    def _end(self, how: StopReason, peaks: Mapping[str, int | None]) -> Outcome:
        outcome = how.outcome(
            steps=self.step,
            epochs=self._budget.epoch(self.step),
            wall_s=time.perf_counter() - self._began,
            best=self._judge.best,
            samples_per_s=self._record.samples_per_s,
            peak_memory_bytes=peaks,
            timing=self._record.timing,
            experience=self._judge.learnt,
        )
        self._judge.close()
        if self._hooks_listen:
            self._hooks_listen = False
            self._audience.end(outcome)
        return outcome
