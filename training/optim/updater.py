"""Parameter updates: learning rate, seeds, nonfinite values, the update and the moving average."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from gearshift.engines.base import LR_FACTOR, PART, Update
from gearshift.models.base import TracksProgress
from gearshift.training.callbacks.base import Numbers
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
        # Step, loss and norm: ranks agree on an error a step after one of them found it.
        self._checked: deque[tuple[int, float, float]] = deque(maxlen=2 * MAX_UNCHECKED)
        self._is_bad = False
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
        if self._unchecked:
            steps, losses, updates = zip(*self._unchecked, strict=True)
            norms = _numbers([update.norm for update in updates])
            numbers = zip(steps, _numbers(losses), norms, updates, strict=True)
            for step, loss, norm, update in numbers:
                # fp16 skips a step when the loss scale is too large: not an error of the gradients.
                if update.skipped:
                    norm = 0.0
                elif _is_sound(0.0, norm):
                    self.has_updated = True
                if not _is_sound(loss, norm):
                    self._is_bad = True
                self._checked.append((step, loss, norm))
            self._unchecked.clear()
        return self._error is not None or self._is_bad

    def describe(self, world: World) -> tuple[str, str]:
        """The error and its fault, the same on every rank. Collective, once any rank found one."""
        if self._error is not None:
            return self._error, _LATER
        bad = [step for step, loss, norm in self._checked if not _is_sound(loss, norm)]
        first = torch.tensor(-min(bad, default=math.inf), dtype=torch.float64)
        step = -int(world.maximum(first).item())
        numbers = [0.0, 0.0]
        for checked, *values in self._checked:
            if checked == step:
                numbers = values
        total = world.sum(torch.tensor(numbers, dtype=torch.float64))
        loss, norm = (total / world.size).tolist()
        fault = _FIRST if step == 1 or not self.has_updated else _LATER
        return f"loss {loss:g} and gradient norm {norm:g} at step {step}", fault

    def _take_or_skip(self, engine: Engine, accumulated: Accumulated, step: int) -> Update:
        world = engine.world
        loss = accumulated.loss
        if world.agree(int(not torch.isfinite(loss))):
            engine.discard()
            self._skipped("loss", step)
            return Update(torch.full_like(loss, math.nan), skipped=True)

        update = engine.step()
        if update.skipped:
            return update
        if _is_sound(0.0, update.norm.item()):
            self.has_updated = True
            self._in_a_row = 0  # the row has ended
            return update
        self._skipped("gradient", step)
        weights = [piece.data for piece in engine.state().pieces if piece.kind == "weight"]
        if world.agree(int(not are_finite(weights))):
            self._error = f"a NaN or infinite gradient reached the weights at step {step}"
        # Without the scale of fp16, which did not cause it: it is reported as any other such step.
        return replace(update, skipped=True, loss_scale=None)

    def _skipped(self, what: str, step: int) -> None:
        self._in_a_row += 1
        if self._in_a_row > self._limit:
            self._error = (
                f"{self._in_a_row} steps in a row had a NaN or an infinity, "
                f"the last in the {what} of step {step}"
            )

    def idle(self, newest: Update, units: int) -> tuple[str, str | None] | None:
        """The error and its fault if no update was taken so far; None: one was.

        `newest`: the last one, which was skipped, of a global batch of so many `units`.
        """
        if self.has_updated:
            return None
        if not units:
            return "no update was taken: no batch has anything to learn from, such as a label", None
        if newest.loss_scale is None:
            why = "the loss or the gradient of every step is not finite"
        else:
            why = f"gradients overflow fp16, also with a loss scale of {newest.loss_scale:g}"
        return f"no update was taken: {why}", _FIRST


def _numbers(scalars: Sequence[Tensor]) -> list[float]:
    """The values of `scalars`, copied to the host in one transfer."""
    if len(scalars) == 1:
        return [scalars[0].item()]
    return torch.stack(list(scalars)).tolist()


def _is_sound(loss: float, norm: float) -> bool:
    # DeepSpeed returns -1 for a norm that is not finite.
    return math.isfinite(loss) and 0 <= norm < math.inf


def are_finite(tensors: list[Tensor]) -> bool:
    """Whether no element is a NaN or an infinity; waits for the device."""
    norms = torch._foreach_norm([t for t in tensors if t.numel()], ord=math.inf)
    return not norms or bool(torch.isfinite(torch.stack(norms)).all())


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
