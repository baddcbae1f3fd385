"""Parameter updates: learning rate, seeds, the update itself, and the moving average."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from gearshift.engines.base import LR_FACTOR, PART, Update
from gearshift.models.base import TracksProgress
from gearshift.training.callbacks.base import Numbers
from gearshift.training.checkpoint.tensor_file import EMA
from gearshift.training.optim.nonfinite import Nonfinite
from gearshift.training.optim.schedule import LrSchedule
from gearshift.training.seeds import seed_step

if TYPE_CHECKING:
    from gearshift.engines.base import Engine
    from gearshift.models.base import Task
    from gearshift.training.accumulate import Accumulated
    from gearshift.training.checkpoint.reader import Checkpoint
    from gearshift.training.checkpoint.resume_point import ResumePoint
    from gearshift.training.optim.ema import Ema
    from gearshift.training.settings import TrainingSettings
    from gearshift.training.train_plan import TrainPlan


class Updater:
    """Takes the updates of a run as its settings require. Collective."""

    def __init__(self, settings: TrainingSettings, train_plan: TrainPlan):
        """Raises ValueError for a bad duration in the schedule."""
        self._schedule = LrSchedule(settings.schedule, train_plan)
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

    def facts(self) -> dict[str, Any]:
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
            from gearshift.training.checkpoint.restore import fill

            fill(checkpoint, self.average.pieces)

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
        if self._newest is None:
            return None
        return self.nonfinite.idle(*self._newest)

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


def set_lr(groups: Sequence[dict[str, Any]], lr: float) -> dict[str, float]:
    """Set the learning rate of parameter groups; returns those of parts with a factor."""
    for group in groups:
        group["lr"] = lr * group.get(LR_FACTOR, 1.0)
    return {group[PART]: group["lr"] for group in groups if PART in group}
