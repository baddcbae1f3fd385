"""Parameter updates: learning rate, seeds, nonfinite values, the update and the moving average."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from gearshift.engines.base import LR_FACTOR, PART, Update
from gearshift.models.base import TracksProgress
from gearshift.training.agreement import first_error
from gearshift.training.callbacks.base import Json, Numbers
from gearshift.training.checkpoint.tensor_file import EMA
from gearshift.training.optim.schedule import LrSchedule
from gearshift.training.seeds import seed_step

if TYPE_CHECKING:
    from torch import Tensor

    from gearshift.engines.base import Engine, World
    from gearshift.models.base import Task
    from gearshift.training.accumulate import Accumulated
    from gearshift.training.checkpoint.reader import Checkpoint
    from gearshift.training.checkpoint.resume_point import ResumePoint
    from gearshift.training.optim.ema import Ema
    from gearshift.training.optim.shards import Groups
    from gearshift.training.settings import TrainingSettings
    from gearshift.training.train_plan import TrainPlan


_FIRST = "nonfinite_first"
_LATER = "nonfinite_later"
_EVALUATION = "nonfinite_evaluation"
MAX_UNCHECKED = 50
"""Steps after which the host waits for the device to check them."""


class Nonfinite:
    """Takes updates, and finds losses and gradients that are not finite.

    With `stop` the host does not wait for the device: a bad step is found some steps later, but
    always before an evaluation or a checkpoint. With `skip N` ranks agree before each update.
    """

    def __init__(self, policy: str):
        """`policy` is "stop", or "skip N": skip at most N steps in a row."""
        self._limit = int(policy.removeprefix("skip ")) if policy != "stop" else 0
        self._unchecked: list[tuple[int, Tensor, Update]] = []
        # Step, loss and norm of the first update that was not finite on this rank
        self._bad: tuple[int, float, float] | None = None
        self.has_updated = False
        """Whether a finite update was taken, the same on every rank once all are checked."""
        self._in_a_row = 0
        self._evaluations = 0  # Evaluations in a row that were not finite
        self._error: str | None = None

    def facts(self) -> dict[str, int]:
        return {
            "in_a_row": self._in_a_row,
            "evaluations": self._evaluations,
            "has_updated": self.has_updated,
        }

    def resume(self, facts: Mapping[str, int]) -> None:
        self._in_a_row = facts["in_a_row"]
        self._evaluations = facts.get("evaluations", 0)
        self.has_updated = bool(facts.get("has_updated", True))

    def error_of_evaluation(self, deciding: Numbers, step: int) -> tuple[str, str] | None:
        """The error and its fault if the policy ends the run after this evaluation.

        `deciding` are the metrics that decide: the goal, and the validation loss.
        """
        texts = [f"{name} {value}" for name, value in deciding.items() if not math.isfinite(value)]
        if not texts:
            self._evaluations = 0
            return None
        self._evaluations += 1
        if self._evaluations <= self._limit:
            return None
        return f"{', '.join(texts)} in the evaluation of val at step {step}", _EVALUATION

    def take(self, engine: Engine, accumulated: Accumulated, step: int) -> Update:
        """Take update number `step`, or skip it if the policy requires it. Collective."""
        if self._limit:
            return self._take_or_skip(engine, accumulated, step)
        update = engine.step()
        self._unchecked.append((step, accumulated.loss, update))
        return update

    def is_due(self, device: torch.device) -> bool:
        """Whether to check now: on a CPU always, else rarely; the same on every rank."""
        return device.type == "cpu" or len(self._unchecked) >= MAX_UNCHECKED

    def has_error(self) -> bool:
        """Whether this rank found an error that ends the run; waits for the device."""
        for step, loss, update in self._unchecked:
            norm = 0.0
            # fp16 skips a step when the loss scale is too large: not an error of the gradients.
            if not update.skipped:
                norm = float(update.norm)
                self.has_updated |= _is_sound(0.0, norm)
            if self._bad is None and not _is_sound(float(loss), norm):
                self._bad = step, float(loss), norm
        self._unchecked.clear()
        return self._error is not None or self._bad is not None

    def describe(self, world: World) -> tuple[str, str]:
        """The error and its fault: the first step, and the numbers of a rank. Collective.

        Once any rank found an error.
        """
        if self._error is not None:
            return self._error, _LATER
        step, loss, norm = self._bad or (math.inf, 0.0, 0.0)
        latest = world.maximum(torch.tensor(-step, dtype=torch.float64))
        first = -int(latest)
        fault = _FIRST if first == 1 or not self.has_updated else _LATER
        error = None
        if step == first:
            error = f"loss {loss:g} and gradient norm {norm:g}"
        return f"{first_error(world, error)} at step {first}", fault

    def _take_or_skip(self, engine: Engine, accumulated: Accumulated, step: int) -> Update:
        loss = accumulated.loss
        if engine.world.agree(int(not torch.isfinite(loss))):
            engine.discard()
            what = "loss"
            update = Update(torch.full_like(loss, math.nan), skipped=True)
        else:
            update = engine.step()
            if update.skipped:
                return update
            if _is_sound(0.0, update.norm.item()):
                self.has_updated = True
                self._in_a_row = 0  # the row has ended
                return update
            what = "gradient"  # the optimizer has dropped it: training/optim/guarded.py
            # Without the scale of fp16, which did not cause it.
            update = replace(update, skipped=True, loss_scale=None)
        self._in_a_row += 1
        if self._in_a_row > self._limit:
            self._error = (
                f"{self._in_a_row} steps in a row had a NaN or an infinity, "
                f"the last in the {what} of step {step}"
            )
        return update


def _is_sound(loss: float, norm: float) -> bool:
    # DeepSpeed returns -1 for a norm that is not finite.
    return math.isfinite(loss) and 0 <= norm < math.inf


class Updater:
    """Takes the updates of a run as its settings require. Collective."""

    def __init__(self, settings: TrainingSettings, train_plan: TrainPlan):
        """Raises ValueError for a bad duration in the schedule."""
        self._schedule: LrSchedule = LrSchedule(settings.schedule, train_plan)
        self._settings = settings.schedule
        self._plan = train_plan
        self._peak_lr = settings.optim.lr
        self._seed = settings.train.seed
        self._decay = settings.train.ema
        self.nonfinite = Nonfinite(settings.train.on_nonfinite)
        self.average: Ema | None = None
        # The last update, and the units of its global batch
        self._newest: tuple[Update, int] | None = None
        self.lr = 0.0
        """Of the update that was prepared last."""
        self.lrs: Numbers = {}
        """Of the same update, those of parts with a factor."""

    @property
    def warnings(self) -> list[str]:
        """Changes that the schedule made to its settings."""
        return self._schedule.warnings

    def fit(self, train_plan: TrainPlan) -> None:
        """Go on with a plan of another length, that of its newest fit."""
        from gearshift.training.optim.fitted_schedule import FittedSchedule

        self._plan = train_plan
        self._schedule = FittedSchedule(self._settings, train_plan, self._schedule)

    def facts(self) -> Json:
        return {"nonfinite": self.nonfinite.facts(), "schedule": self._schedule.facts()}

    def start(self, engine: Engine, resume_point: ResumePoint | None = None) -> None:
        """Start the moving average from the checkpoint, or from the weights."""
        if self._decay is not None:
            from gearshift.training.optim.ema import Ema  # where train.ema is set

            self.average = Ema(engine, self._decay)
        if resume_point is None:
            return
        if "optimizer" not in resume_point.reset:
            self.load_average(resume_point.checkpoint)
        self.nonfinite.resume(resume_point.fact("nonfinite", {"in_a_row": 0}))
        if "schedule" not in resume_point.reset:
            self._schedule.resume(resume_point.fact("schedule", {}))

    def load_average(self, checkpoint: Checkpoint) -> None:
        if self.average and EMA in checkpoint.kinds:
            checkpoint.fill(self.average.pieces)

    def averaged(self, engine: Engine) -> AbstractContextManager[None]:
        """Inside, the model has the moving average for its weights, if there is one."""
        return self.average.in_place(engine) if self.average else nullcontext()

    def prepare(self, task: Task, engine: Engine, step: int) -> None:
        """Set the learning rate, the seeds and the progress of the task after `step` updates."""
        world = engine.world
        self.lr = self._peak_lr * self._schedule.factor(step)
        self.lrs = set_lr(engine.groups, self.lr)
        seed_step(self._seed, step, world.rank, world.device)
        if isinstance(task, TracksProgress):
            plan = self._plan
            epochs = plan.epoch(plan.total_steps)
            # An experience starts at the end of the progress of the run that it joins.
            task.set_progress(epochs if plan.experience else plan.epoch(step), epochs)

    def add(self, score: tuple[float, int] | None) -> None:
        """Add `eval.metric` of an evaluation, for schedule plateau: value and sign."""
        if score is not None:
            self._schedule.add(*score)

    @property
    def idle(self) -> tuple[str, str | None] | None:
        """The error and its fault if all steps were skipped; None: one was not."""
        if self._newest is None or self.nonfinite.has_updated:
            return None
        update, units = self._newest
        if not units:
            return "no update was taken: no batch has anything to learn from, such as a label", None
        if update.loss_scale is None:
            why = "the loss or the gradient of every step is not finite"
        else:
            why = f"gradients overflow fp16, also with a loss scale of {update.loss_scale:g}"
        return f"no update was taken: {why}", _FIRST

    def take(self, engine: Engine, accumulated: Accumulated, step: int) -> Update:
        """Take update number `step`; skip it if the global batch has no units."""
        if accumulated.units:
            update = self.nonfinite.take(engine, accumulated, step)
        else:
            engine.discard()
            update = Update(accumulated.loss, skipped=True)
        self._newest = update, accumulated.units
        if self.average is not None and not update.skipped:
            engine.settle()
            self.average.update(step)
        return update


def set_lr(groups: Groups, lr: float) -> Numbers:
    """Set the learning rate of parameter groups; returns those of parts with a factor."""
    for group in groups:
        group["lr"] = lr * group.get(LR_FACTOR, 1.0)
    return {group[PART]: group["lr"] for group in groups if PART in group}
