"""The state of a run for the training loop: due actions, evaluation, checkpoints, its end."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gearshift.training.accumulate import TOKENS, units_and_tokens
from gearshift.training.agreement import (
    WORKER_DIED,
    Agreed,
    Interrupted,
    Interruption,
    agree_later,
    first_error,
)
from gearshift.training.callbacks.base import (
    FINISHED,
    REPLAYED,
    TEST,
    THROTTLING,
    Action,
    Callback,
    CallbackList,
    EvalResult,
    Facts,
    Outcome,
    Step,
    WorkerDied,
    completed,
    failed,
    requested,
)
from gearshift.training.checkpoint.manifest import CheckpointError
from gearshift.training.checkpoint.writer import CheckpointController
from gearshift.training.evaluation.evaluate import (
    beside_baseline,
    check_measures,
    measure,
    measure_baselines,
    ranked_baselines,
)
from gearshift.training.evaluation.evaluator import Evaluator
from gearshift.training.inspection import Preview, untrained
from gearshift.training.optim.updater import Updater
from gearshift.training.resources.memory import synchronize
from gearshift.training.step_metrics import (
    DATA,
    EVALUATION,
    OTHER,
    SAVING,
    RunMetrics,
    StepTimer,
    timing,
)
from gearshift.training.throttle import Throttle
from gearshift.training.train_plan import Fit

if TYPE_CHECKING:
    from torch.nn import Module

    from gearshift.engines.base import Engine, Update, World
    from gearshift.models.base import Task
    from gearshift.training.accumulate import Accumulated, Units
    from gearshift.training.callbacks.base import StopReason
    from gearshift.training.checkpoint.manifest import Score
    from gearshift.training.checkpoint.resume_point import ResumePoint
    from gearshift.training.checkpoint.writer import CheckpointWriter
    from gearshift.training.data.loader import Batches, EvaluationBatches
    from gearshift.training.data.samples import MicroBatch
    from gearshift.training.evaluation.evaluate import HeldOut
    from gearshift.training.resources.memory import PeakMemory
    from gearshift.training.settings import TrainingSettings
    from gearshift.training.shares import Balance
    from gearshift.training.stragglers import Stragglers
    from gearshift.training.time_budget import TimeBudget
    from gearshift.training.train_plan import TrainPlan

# Flags of the loop, above those of Action
_NONFINITE = 1 << 9
_SAVED = 1 << 10


class TrainingRun:
    """What the loop does between steps. Collective: all methods except `fail`."""

    def __init__(
        self,
        settings: TrainingSettings,
        train_plan: TrainPlan,
        callbacks: Sequence[Callback],
        held_out: HeldOut,
        writer: CheckpointWriter,
        constant_facts: Facts,
        resume_point: ResumePoint | None = None,
        peak_memory: PeakMemory | None = None,
        test: EvaluationBatches | None = None,
        fits: Sequence[Sequence[int]] = (),
    ):
        """`constant_facts` go into every checkpoint.

        `test` is the test split to evaluate at the end; None: it is not. `fits` to the budget of
        time are those of the run so far, and of later steps where it is replayed.
        The engine already has the state of `resume_point`. Raises ValueError for a bad duration.
        """
        self.step = train_plan.first_step
        """Updates taken, including skipped ones."""
        self.passes: Sequence[MicroBatch] | None = None
        """The micro-batches of forward and backward passes; None: outside of them."""
        self._plan = train_plan
        # Read here: a setting that is read after the start would count as unused.
        self._evaluates_last = settings.eval.last
        self._resume_point = resume_point
        self._constant_facts = constant_facts
        self._stop: StopReason | None = None
        self._requests = 0  # Flags for the next agreement
        self._agreement: Callable[[], Agreed] | None = None
        self._no_units: Units = {}
        self._tokens: int | None = None
        self._asked_of: int | None = None  # The step saved last when the agreement was started
        self._callbacks = CallbackList(callbacks)
        self._callbacks_started = False
        self.updater = Updater(settings, train_plan)
        self._evaluator = Evaluator(settings, held_out, train_plan.data_start)
        self._held_out = held_out
        self._test = test
        self._test_result: Facts | None = None
        self._seed = settings.train.seed
        self._baselines: Sequence[Facts] = ()
        self._evaluated_at: int | None = None
        self._owes_evaluation = False
        self._has_other_weights = False
        self.timer = StepTimer(settings.train.timing)
        self._metrics = RunMetrics(
            train_plan,
            settings.log.every,
            settings.precision,
            self.timer,
            peak_memory,
        )
        self._checkpoints = CheckpointController(
            settings.save,
            writer,
            self._callbacks,
            train_plan.first_step,
        )
        self._preview = Preview(settings, self._callbacks)
        self._settings = settings
        self._known_fits = deque(Fit(*fit) for fit in fits)
        self._take_known_fits()
        self._budget: TimeBudget | None = None
        self._methods: Any = None  # Baselines that were measured early
        if train_plan.time_s is not None:
            from gearshift.training.time_budget import TimeBudget  # for runs with such a budget

            self._budget = TimeBudget(train_plan.time_s, train_plan, settings)
        self._straggler_ratio: float | None = None
        if train_plan.world_size > 1:
            self._straggler_ratio = settings.log.stragglers
        self._stragglers: Stragglers | None = None
        self._balance: Balance | None = None
        if resume_point:
            self._resume(resume_point)

    def start(self, task: Task, engine: Engine, module: Module, batches: Batches) -> None:
        """Start the callbacks, and evaluate what is needed first. Raises SettingError."""
        self._task = task
        self._engine = engine
        self._module = module
        self._batches = batches
        self._interruption = Interruption(
            engine.world,
            self._callbacks.requested,
            gathers_weights=engine.gathers_weights,
        )
        device = engine.world.device
        self.timer.start(device)
        self._preview.start(task, module, engine, self.updater, self._interruption)
        validation = [part.batches for part in self._held_out.parts]
        self.throttle = Throttle(engine, module, self._callbacks, self.timer, batches, validation)
        module.train()
        self.passes = ()
        if self.step == 0:
            check_measures(task, module, batches.micro_batch, engine.world)
        self._evaluator.start(module, self._interruption)  # before callbacks write anything
        self.passes = None
        self._callbacks_started = True
        self._callbacks.start(self._plan)
        for text in self.updater.warnings:
            self._callbacks.event("warning", {"text": text})
        self.updater.start(engine, self._resume_point)
        if self._resume_point:
            self._resume_point.report(self._callbacks.event)
        with self._interruptible():
            with self.timer.paused(EVALUATION):
                averaged = self.updater.averaged(engine)
                self._evaluator.evaluate_before(module, self._interruption, averaged)
            if self.step == 0:
                self._preview.samples("before", 0)
        if self._owes_evaluation and self.step < self._plan.end_step:
            self.evaluate()
        reason = self._evaluator.reason_to_stop
        if reason:  # the checkpoint was the last one
            self._stop = completed(reason)
        if self._straggler_ratio is not None:
            from gearshift.training.stragglers import Stragglers  # of several ranks only

            self._stragglers = Stragglers(self._straggler_ratio, engine.world, self._callbacks)
        if self._plan.fits_shares:
            from gearshift.training.shares import Balance, LayerTimer  # of unequal ranks only

            self._balance = Balance(bool(self._plan.shares), engine.world, self._callbacks)
            if engine.gathers_weights:  # a forward pass as a whole waits for other ranks
                self._metrics.computing_s = LayerTimer(module, self.timer).seconds
        self.timer.begin_steps()

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """A signal ends what is done within, and then the run."""
        try:
            yield
        except Interrupted as interrupted:
            self._stop = requested(interrupted.actions)

    @property
    def _is_stopped(self) -> bool:
        """A signal, a deadline or a limit ends the run: another process takes the rest."""
        return self._stop is not None and self._stop.is_resumable

    @property
    def is_over(self) -> bool:
        return self._stop is not None or self.step >= self._plan.last_step

    # Between steps

    def agree(self, micro_batches: Sequence[MicroBatch]) -> tuple[Units, Action]:
        """Units of the global batch, and the actions that any rank requested.

        One rank acts on its requests before the next step, several a step later.
        """
        world = self._engine.world
        error = self._batches.error
        if self._agreement is None:
            if error is not None and self.step == self._plan.first_step:
                raise error  # alone: nothing was trained yet
            self._start_agreement(micro_batches)
        assert self._agreement is not None
        counts, agreed = self._agreement()
        self._agreement = None
        units = dict(counts)
        self._tokens = units.pop(TOKENS, None)

        if not agreed:
            return units, Action.NOTHING
        if agreed & WORKER_DIED:
            text = str(error) if error else None
            raise WorkerDied(first_error(world, text))
        if agreed & _NONFINITE:
            self._fail(*self.updater.nonfinite.describe(world))
            return units, Action.NOTHING
        if agreed & _SAVED and self._checkpoints.saved_step == self._asked_of:
            with self.timer.paused(SAVING):
                self._checkpoints.wait()
        actions = Action(agreed & ~_SAVED)
        self._stop = self._stop or requested(actions)
        if self._is_stopped and not self._checkpoints.saves_on_signal:
            actions &= ~Action.SAVE
        return units, actions

    def rebalance(self) -> bool:
        """Give each rank the share of the next step; True: the batches must be taken again."""
        if not self._plan.shares:
            return False
        samples = self._plan.samples_by_rank(self.step)
        if samples == self._batches.samples_by_rank:
            return False
        with self.timer.paused():
            self._batches.begin(self.step, samples_by_rank=samples)
        return True

    def agree_ahead(self, batches: Batches) -> None:
        """Start the agreement before the next step, so that no rank waits for others there.

        It joins while this step is computed, and takes the requests up to this step.
        """
        if self._engine.world.size > 1:
            self.timer.enter(DATA)
            micro_batches = batches.ahead()
            self.timer.enter(OTHER)
            self._start_agreement(micro_batches)

    def last_requests(self) -> Action:
        """The actions requested before the last step, once the run is over."""
        if self._agreement is None:
            return Action.NOTHING
        _, actions = self.agree([])
        return actions & ~THROTTLING

    def _start_agreement(self, micro_batches: Sequence[MicroBatch]) -> None:
        flags = self._requests
        self._requests = 0
        if self._batches.error is not None:
            flags |= WORKER_DIED
        if self._checkpoints.writer.is_settled:
            flags |= _SAVED
        self._asked_of = self._checkpoints.saved_step
        counts = units_and_tokens(micro_batches)
        # Without batches, after the last step or without a worker: the same terms as other ranks.
        self._no_units = dict.fromkeys(counts, 0) or self._no_units
        self._agreement = agree_later(self._engine.world, counts or self._no_units, flags)

    def record(self, accumulated: Accumulated, update: Update, data_s: float) -> None:
        self.step += 1
        step = Step(
            step=self.step,
            **vars(accumulated),
            **vars(update),
            lr=self.updater.lr,
            lrs=self.updater.lrs,
            data_s=data_s,
            tokens=self._tokens,
        )
        if self.step == self._plan.first_step + 1:
            for kind, facts in untrained(self._engine):
                self._callbacks.event(kind, facts)
        if update.skipped and update.loss_scale is None:
            self._callbacks.event("skipped", {"step": self.step, "units": accumulated.units})
        self._requests |= self._callbacks.step(step)
        is_log_due = self._metrics.add(step)
        if is_log_due:
            metrics = self._metrics.line(self._engine.world)
            self._callbacks.logged(metrics)
            times = self._metrics.rank_times
            if self._stragglers is not None:
                self._stragglers.compare(self.step, times, self._engine.gathers_weights)
            if self._balance is not None:
                samples = self._balance.fit(self.step, times, self._batches)
                if samples is not None:
                    shares = [*self._plan.shares, (self.step, samples)]
                    self._plan = replace(self._plan, shares=shares)
        nonfinite = self.updater.nonfinite
        if (is_log_due or nonfinite.is_due(self._engine.world.device)) and nonfinite.has_error():
            self._requests |= _NONFINITE

    def due(self) -> Action:
        """The actions that the cadences require after this step; `finish` does the last one."""
        actions = Action.NOTHING
        if self.step < self._plan.end_step:
            if self._plan.evaluates_at(self.step):
                actions |= Action.EVALUATE
            if self._plan.saves_at(self.step):
                actions |= Action.SAVE
        return actions

    # The budget of time

    def fit(self) -> None:
        """Fit the length of the run to its budget of time, where one is set and it is due.

        By the clock of rank 0. Raises SettingError if a run that starts has no time for its end.
        """
        self._take_known_fits()
        budget = self._budget
        if budget is None or self.is_over or not budget.is_due(self.step, self._plan.total_steps):
            return
        world = self._engine.world
        synchronize(world.device)
        budget.mark(self.step, self.timer.steps_s)
        if budget.step_s:
            self._fit(budget, world)

    def _fit(self, budget: TimeBudget, world: World) -> None:
        if budget.needs_costs(self._plan.total_steps):
            with self._interruptible(), self.timer.paused(EVALUATION):
                began = time.perf_counter()
                self._preview.make()
                samples_s = time.perf_counter() - began
                val = self._held_out.parts[0].batches
                with self.updater.averaged(self._engine):
                    budget.measure(self._task, self._module, val, self._test, self._interruption)
                budget.final_s += samples_s
            self._measure_baselines()
            if not budget.save_s and self._checkpoints.saves_last:
                began = time.perf_counter()
                self.save()
                with self.timer.paused(SAVING):
                    self._checkpoints.wait()
                budget.save_s = time.perf_counter() - began
        if self.is_over:
            return
        facts = budget.agree(world, self._plan, self.step, self.timer.wall_s)
        fit = Fit(self.step, facts["total_steps"], facts["evaluates_until"])
        if fit[1:] != (self._plan.total_steps, self._plan.evaluates_until):
            self._take(fit)
            self._callbacks.event("fitted", facts)

    def _take_known_fits(self) -> None:
        while self._known_fits and self._known_fits[0].step <= self.step:
            self._take(self._known_fits.popleft())

    def _take(self, fit: Fit) -> None:
        from gearshift.training.time_budget import fitted

        self._plan = fitted(self._plan, self._settings, fit)
        self.updater.fit(self._plan)
        writer = self._checkpoints.writer
        writer.keep = replace(writer.keep, every=self._plan.keep_every, at=self._plan.keep_at)

    # Evaluation and checkpoints

    def evaluate(self) -> None:
        """Evaluate the validation split; save if it is among the best; apply early stopping.

        An evaluation that a signal ends is owed: the resumed run takes it first.
        """
        if self._evaluated_at == self.step or self._is_stopped or not self._is_finite():
            return
        began = time.perf_counter()
        self._owes_evaluation = True
        with self.timer.paused(EVALUATION), self._interruptible():
            with self.updater.averaged(self._engine):
                results = self._evaluator.evaluate(
                    self._module,
                    self._interruption,
                    self.step,
                    is_last=self.is_over,
                    is_due=self._plan.evaluates_at(self.step),
                )
            self._evaluated_at = self.step
            self._owes_evaluation = False
            if self._plan.evaluates_at(self.step):
                self.updater.add(self._evaluator.value)
            for result in results:
                self._requests |= self._callbacks.evaluated(result)
            self._preview.predictions(self.step)
        if self._owes_evaluation:
            return
        reason = self._evaluator.reason_to_stop
        if reason and not self.is_over:
            self._stop = completed(reason)
        error = self.updater.nonfinite.error_of_evaluation(self._evaluator.deciding, self.step)
        if self._evaluator.score is not None:
            self._save(self._evaluator.score)
        if self._budget is not None:
            self._budget.evaluation_s = time.perf_counter() - began
        if error is not None:
            if self._checkpoints.saves_last:
                self.save()  # its weights are finite
            self._stop = failed(*error)

    def save(self) -> None:
        """Save a checkpoint, unless this step has one."""
        if self._checkpoints.saved_step != self.step and self._is_finite():
            self._save(None)

    def _save(self, score: Score | None) -> None:
        with self.timer.paused(SAVING):
            state = self._engine.state()
            average = self.updater.average
            if average is not None:
                state = average.joined(state)
            is_periodic = self._plan.saves_at(self.step)
            self._checkpoints.save(
                self.step,
                state,
                self._facts(),
                is_periodic,
                score,
            )

    def _facts(self) -> dict[str, Any]:
        """What a checkpoint keeps beside the state; `_resume` reads it."""
        shares = self._plan.shares
        return {
            **self._plan.facts(self.step),
            "units": self._metrics.units,
            "wall_s": self.timer.wall_s,
            "best": self._evaluator.best,
            "evaluator": self._evaluator.facts(),
            "evaluated_at": self._evaluated_at,
            "owes_evaluation": self._owes_evaluation,
            "metrics": self._metrics.facts(),
            "time_split": self.timer.facts(),
            # Empty: not measured yet; None: nothing measures them.
            "shares": shares if shares or self._plan.fits_shares else None,
            **self.updater.facts(),
            **self._constant_facts,
        }

    def _resume(self, resume_point: ResumePoint) -> None:
        fact = resume_point.fact
        self._metrics.resume(fact("metrics", {"units": fact("units")}))
        self.timer.resume(fact("time_split", {}), resume_point.wall_s)
        self._evaluated_at = self._preview.shown_at = fact("evaluated_at")
        self._owes_evaluation = fact("owes_evaluation", False)
        if "data" not in resume_point.reset:  # scores on other data cannot be compared
            self._evaluator.resume(fact("evaluator"), keeps_best=not resume_point.is_fork)

    def _is_finite(self) -> bool:
        """No rank has met a NaN or an infinity: the weights may be evaluated and saved."""
        if self._stop is not None and self._stop.status == "failed":
            return False
        if self._engine.world.agree(int(self.updater.nonfinite.has_error())):
            self._fail(*self.updater.nonfinite.describe(self._engine.world))
            return False
        return True

    def _fail(self, text: str, fault: str | None) -> None:
        if fault is not None:
            self._callbacks.event("nonfinite", {"text": text, "fault": fault})
        self._stop = failed(text, fault)

    # The end

    def finish(self) -> Outcome:
        """Log, evaluate and save what is due at the end, and call the callbacks."""
        if self._stop is None and self.step < self._plan.end_step:
            self._stop = REPLAYED
            self.save()
        elif not self._is_stopped:
            with self._interruptible():
                self._complete()
        if self._is_stopped and self._checkpoints.saves_on_signal and not self._has_other_weights:
            # Not logged: a stopped and resumed run logs the same lines as an unbroken one.
            self.save()
        with self.timer.paused(SAVING):
            self._checkpoints.wait()
        synchronize(self._engine.world.device)  # the timer then knows all parts
        reason = self._stop or FINISHED
        if self._stop is None and self.step < self._plan.total_steps:
            reason = completed(f"stop.after: reached step {self.step}")
        return self._end(reason, self._metrics.peaks.maximum(self._engine.world))

    def _complete(self) -> None:
        if self._metrics.is_behind:
            self._callbacks.logged(self._metrics.line(self._engine.world))
        if self._evaluates_last or self._plan.evaluates_at(self.step):
            self.evaluate()
        if self._is_stopped:
            return
        saves_last = self._checkpoints.saves_last or self._plan.until is not None
        if saves_last or self._plan.saves_at(self.step):
            self.save()
        if self._is_finite():
            self._preview.predictions(self.step)
            experience = self._evaluator.experience
            if experience:
                self._callbacks.event("experience_trained", experience)
            weights_step = self._checkpoints.load_best(
                self._evaluator.best,
                self.step,
                self._engine,
                self.updater.load_average,
            )
            self._has_other_weights = weights_step != self.step
            if self._test is not None and self._plan.until is None:  # a replay has another best
                self._test_result = {
                    "step": weights_step,
                    "metrics": self._measure_test(self._test),
                }
            self._preview.samples("after", weights_step)
            self._compare_with_baselines()
        if self._stop is None or not self._stop.exit_code:
            leak = self._evaluator.check_noise_control(self._callbacks.event)
            self._stop = leak or self._stop
            idle = self.updater.idle
            if idle:
                self._fail(*idle)

    def _compare_with_baselines(self) -> None:
        """Measure simple methods on the data of the best evaluation; of a whole run only."""
        best = self._evaluator.best
        if best is None or self._held_out.number or self._plan.until is not None:
            return
        self._measure_baselines()
        self._baselines = ranked_baselines(self._methods, best, self._callbacks.event)

    def _measure_baselines(self) -> None:
        if self._methods is None:
            with self.timer.paused(EVALUATION):
                self._methods = measure_baselines(self._task, self._seed, self._engine.world)

    def _measure_test(self, batches: EvaluationBatches) -> dict[str, float]:
        began = time.perf_counter()
        count = batches.samples
        with self.timer.paused(EVALUATION), self.updater.averaged(self._engine):
            metrics = measure(self._task, self._module, batches, self._interruption)
        seconds = time.perf_counter() - began
        result = EvalResult(self.step, TEST, metrics, False, seconds, seconds, count, count)
        self._callbacks.evaluated(result)
        return metrics

    def fail(self, error: BaseException) -> None:
        """End the callbacks because of `error`, unless they were ended. Not collective.

        Except for WorkerDied, which all ranks raise, between two steps: what was trained is saved.
        """
        if isinstance(error, WorkerDied) and self._checkpoints.saves_on_signal:
            try:
                if not self._has_other_weights:
                    self.save()
                self._checkpoints.wait()
            except CheckpointError as unsaved:
                self._callbacks.event("warning", {"text": str(unsaved)})
        self._checkpoints.writer.abandon()
        reason = failed(f"{type(error).__name__}: {error}")
        self._end(reason, self._metrics.peaks.local(self._engine.world.device))

    def _end(self, reason: StopReason, peaks: Mapping[str, int | None]) -> Outcome:
        wall_s = self.timer.wall_s
        best: Facts | None = self._evaluator.best
        if best is not None:
            best = beside_baseline(best, self._baselines)
        outcome = Outcome(
            reason.status,
            reason.reason,
            reason.exit_code,
            fault=reason.fault,
            steps=self.step,
            epochs=self._plan.epoch(self.step),
            wall_s=wall_s,
            best=best,
            baselines=self._baselines,
            samples_per_s=self._metrics.samples_per_s,
            peak_memory_bytes=peaks,
            timing=timing(self.timer.step_ends, self._plan),
            time_split=self.timer.summary(wall_s),
            experience=self._evaluator.experience,
            test=self._test_result,
        )
        self._held_out.close()
        if self._callbacks_started:
            self._callbacks_started = False
            self._callbacks.end(outcome)
        return outcome
