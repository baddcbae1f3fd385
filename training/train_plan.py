"""The numbers of a run, solved from its settings and the size of its data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from training import duration
from training.checkpoint.resume_point import ResumePoint, StartSteps

if TYPE_CHECKING:
    from training.data.order import DataOrder
    from training.settings import Settings


@dataclass(frozen=True)
class TrainPlan:
    """The solved numbers of a run; the same on every rank."""

    total_steps: int
    steps_per_epoch: int
    global_batch: int
    micro_batch: int
    accumulation: int
    world_size: int
    units: str
    first_step: int = 0
    """Steps taken before this process began."""
    eval_every: int | None = None
    """Steps from one evaluation to the next; None: one at the end only."""
    save_every: int | None = None
    """Steps from one periodic save to the next; None: there are none."""
    flops_per_sample: float | None = None
    """Of forward and backward, as the task counts them; None: not known."""
    data_start: int = 0
    """The step at which the order of the data began: 0, or that of the last `--reset data`."""
    schedule_start: int = 0
    """The step at which the schedule began: 0, or that of the last `--reset schedule`."""
    samples_before: int = 0
    """Samples seen when the order of the data began."""
    until: int | None = None
    """Go no further than this step, whatever is left: a replay ends here; None: to the end."""
    experience: int = 0
    """The number of the experience that is learnt; 0: the data that the run began with."""
    left_out: int = 0
    """Samples of each epoch that fill no global batch any more; other ones in each."""
    eval_each_epoch: bool = False
    """Evaluate at the end of each epoch, whatever `eval_every` is."""
    keep_every: int | None = None
    """Steps from one periodic checkpoint that stays for good to the next; None: none does."""
    stop_after: int | None = None
    """The run ends with this step, in good order, whatever its schedule goes on to."""

    @property
    def end_step(self) -> int:
        """The step that the run ends with: all are taken, or as many as it is to take."""
        return (
            self.total_steps if self.stop_after is None else min(self.total_steps, self.stop_after)
        )

    @property
    def last_step(self) -> int:
        """The step that this process ends with."""
        return self.end_step if self.until is None else min(self.end_step, self.until)

    def epoch(self, step: int) -> float:
        """Passes over the data after `step` updates."""
        return (step - self.data_start) / self.steps_per_epoch

    def samples(self, step: int) -> int:
        """Samples seen after `step` updates."""
        return self.samples_before + (step - self.data_start) * self.global_batch

    def evaluates_at(self, step: int) -> bool:
        """Whether `eval.every` or `eval.each_epoch` fall on `step`."""
        since = step - self.data_start
        ends_epoch = self.eval_each_epoch and since % self.steps_per_epoch == 0
        return ends_epoch or bool(self.eval_every and since % self.eval_every == 0)

    def saves_at(self, step: int) -> bool:
        """Whether `save.every` falls on `step`."""
        return bool(self.save_every and step % self.save_every == 0)

    def facts(self, step: int) -> dict[str, Any]:
        """Where a run stands after `step` updates, as plain numbers; see training/checkpoint/resume_point.py."""
        return {
            "step": step,
            "epoch": self.epoch(step),
            "samples": self.samples(step),
            "position": self.samples(step) - self.samples_before,
            "starts": {
                "data": self.data_start,
                "schedule": self.schedule_start,
                "samples_before": self.samples_before,
            },
        }


def solve(
    settings: Settings,
    order: DataOrder,
    *,
    micro_batch: int,
    world_size: int,
    units: str,
    flops_per_sample: float | None = None,
    before: ResumePoint | None = None,
    until: int | None = None,
    experience: int = 0,
) -> TrainPlan:
    """Steps in all, and how often to evaluate and save. Raises ValueError where a length is none.

    `micro_batch` × `world_size` divides the global batch of `order`. Epochs are counted from where
    the order of the data began, `train.max_steps` from the beginning of the run; those of an
    `experience` from its own.
    """
    starts = before.starts if before else StartSteps()
    total = starts.data + max(1, round(settings.train.epochs * order.steps_per_epoch))
    if settings.train.max_steps is not None:
        total = min(total, settings.train.max_steps + (starts.data if experience else 0))

    def cadence(every: int | str | None) -> int | None:
        if every is None:
            return None
        return max(1, duration.steps(every, order.steps_per_epoch, total))

    return TrainPlan(
        total_steps=total,
        steps_per_epoch=order.steps_per_epoch,
        global_batch=order.global_batch,
        micro_batch=micro_batch,
        accumulation=order.global_batch // (micro_batch * world_size),
        world_size=world_size,
        units=units,
        first_step=before.step if before else 0,
        data_start=starts.data,
        schedule_start=starts.schedule,
        samples_before=starts.samples_before,
        until=until,
        experience=experience,
        stop_after=cadence(settings.stop.after),
        keep_every=cadence(settings.save.keep_every),
        left_out=order.length % order.global_batch,
        eval_every=cadence(settings.eval.every),
        eval_each_epoch=settings.eval.each_epoch,
        save_every=cadence(settings.save.every),
        flops_per_sample=flops_per_sample,
    )
