"""One update after another: learning rate, randomness, the update itself, the moving average."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from engines.base import Update
from models.base import TracksProgress
from training.checkpoint.restore import fill
from training.optim.ema import KIND, Ema
from training.optim.nonfinite import Nonfinite
from training.optim.schedule import Schedule
from training.seeds import seed_step

if TYPE_CHECKING:
    from engines.base import Engine
    from models.base import Task
    from training.accumulate import Accumulated
    from training.checkpoint.reader import Checkpoint
    from training.checkpoint.resume_point import ResumePoint
    from training.settings import Settings
    from training.train_plan import TrainPlan


class Updater:
    """What the settings say of updates, carried out under an engine. Collective."""

    def __init__(self, settings: Settings, train_plan: TrainPlan):
        """Raises ValueError where a length of the schedule is none."""
        self._schedule = Schedule(settings.schedule, train_plan)
        self._peak = settings.optim.lr
        self._seed = settings.train.seed
        self._budget = train_plan
        self._decay = settings.train.ema
        self.nonfinite = Nonfinite(settings.train.on_nonfinite)
        self.average: Ema | None = None
        self.lr = 0.0
        """Of the update that was prepared last."""

    @property
    def warnings(self) -> list[str]:
        """What will not be done as it was written, for a person."""
        return self._schedule.warnings

    def start(self, engine: Engine, before: ResumePoint | None = None) -> None:
        """Begin the moving average, where there is one: as it was before, or from the weights."""
        if self._decay is not None:
            self.average = Ema(engine, self._decay)
            if before and "optimizer" not in before.reset:
                self.load_average(before.checkpoint)
        if before:
            self.nonfinite.resume(before.fact("nonfinite", {"in_a_row": 0}))

    def load_average(self, checkpoint: Checkpoint) -> None:
        """Take the average that `checkpoint` has, where there is one here."""
        if self.average and KIND in checkpoint.kinds:
            fill(checkpoint, self.average.pieces)

    def averaged(self, engine: Engine) -> AbstractContextManager[None]:
        """Inside, the model has its average for its weights, where there is one."""
        return self.average.in_place(engine) if self.average else nullcontext()

    def prepare(self, task: Task, engine: Engine, step: int) -> None:
        """Set learning rate, generators and the pace of the loss, after `step` updates."""
        self.lr = self._peak * self._schedule.factor(step)
        for group in engine.groups:
            group["lr"] = self.lr
        seed_step(self._seed, step, engine.world.rank, engine.world.device)
        if isinstance(task, TracksProgress):
            train_plan = self._budget
            epochs = train_plan.epoch(train_plan.total_steps)
            # What joins a run begins where its pace has come to, at the end.
            task.set_progress(epochs if train_plan.experience else train_plan.epoch(step), epochs)

    def take(self, engine: Engine, window: Accumulated, step: int) -> Update:
        """Update number `step` from the gradients of `window`; none where it has no units."""
        if not window.units:
            engine.discard()
            return Update(window.loss, skipped=True)
        update = self.nonfinite.take(engine, window, step)
        if self.average is not None and not update.skipped:
            self.average.update(step)
        return update
