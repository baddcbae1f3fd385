"""The training plan: steps, batch sizes and cadences, solved from settings and data size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import lcm
from typing import TYPE_CHECKING, Any, NamedTuple

from gearshift.training.settings import MOST_STEPS, duration_steps

if TYPE_CHECKING:
    from gearshift.training.settings import TrainingSettings


ShareChange = tuple[int, Sequence[int]]
"""The updates before a step, and the samples of each rank from that step on."""


@dataclass(frozen=True)
class StartSteps:
    """The steps of the run at which the data order and the schedule began."""

    data: int = 0
    schedule: int = 0
    samples_before: int = 0
    """Samples seen when the data order began."""


class Fit(NamedTuple):
    """The length that a budget of time gave a run after `step` updates."""

    step: int
    total_steps: int
    evaluates_until: int = MOST_STEPS
    """The last step with an evaluation before the end."""


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
    """Steps taken before this process started."""
    eval_every: int | None = None
    """Steps between evaluations; None: evaluate at the end only."""
    save_every: int | None = None
    """Steps between periodic checkpoints; None: no periodic checkpoints."""
    flops_per_sample: float | None = None
    """Of forward and backward, as the task counts them; None: unknown."""
    data_start: int = 0
    """The step at which the data order began: 0, or the step of the last `--reset data`."""
    schedule_start: int = 0
    """The step at which the schedule began: 0, or the step of the last `--reset schedule`."""
    samples_before: int = 0
    """Samples seen when the data order began."""
    until: int | None = None
    """Stop at this step to compare with a checkpoint (verify); None: train to the end."""
    experience: int = 0
    """The number of the experience in continual learning; 0: the first data."""
    dropped_samples: int = 0
    """Samples per epoch that do not fill a global batch; different ones in each epoch."""
    eval_each_epoch: bool = False
    """Also evaluate at the end of each epoch."""
    keep_every: int | None = None
    """Steps between periodic checkpoints that are never deleted; None: all may be deleted."""
    keep_at: int | None = None
    """The step before the decay of schedule wsd: its checkpoint stays, to train on from there."""
    stop_after: int | None = None
    """The last step (`stop.after`), with the schedule of the whole run."""
    shares: Sequence[ShareChange] = ()
    """How ranks share the global batch, by the steps from which they do; empty: equally. A replay
    knows those of later steps."""
    fits_shares: bool = False
    """The speed of the ranks decides how they share from now on (`engine.shares` auto)."""
    time_s: float | None = None
    """The budget of time of the run, over all its processes; None: it has none."""
    most_steps: int = MOST_STEPS
    """The last step without a budget of time, by `train.epochs` or `train.max_steps`."""
    fits: Sequence[Fit] = ()
    """Of the steps so far, to the budget of time."""

    @property
    def has_length(self) -> bool:
        """Whether the last step is known, at least as a limit; else the first fit tells it."""
        return self.total_steps < MOST_STEPS

    @property
    def evaluates_until(self) -> int:
        """Evaluations that are due later do not fit the budget of time, and are left out."""
        return self.fits[-1].evaluates_until if self.fits else MOST_STEPS

    @property
    def end_step(self) -> int:
        return min(self.total_steps, self.stop_after or self.total_steps)

    @property
    def last_step(self) -> int:
        """The last step of this process."""
        if self.until is None:
            return self.end_step
        return min(self.end_step, self.until)

    def samples_by_rank(self, step: int) -> Sequence[int]:
        """The samples of each rank in the step after `step` updates."""
        samples: Sequence[int] = [self.global_batch // self.world_size] * self.world_size
        for begin, changed in self.shares:
            if begin <= step:
                samples = changed
        return samples

    def epoch(self, step: int) -> float:
        return (step - self.data_start) / self.steps_per_epoch

    def samples(self, step: int) -> int:
        return self.samples_before + (step - self.data_start) * self.global_batch

    def evaluates_at(self, step: int) -> bool:
        """Whether `eval.every` or `eval.each_epoch` requires an evaluation after `step`."""
        return self.evaluations(step - 1, min(step, self.evaluates_until)) > 0

    def evaluations(self, after: int, until: int) -> int:
        """The number of evaluations that `eval` requires in the steps (after, until]."""

        def due(every: int) -> int:
            if not every:
                return 0
            return (until - self.data_start) // every - (after - self.data_start) // every

        every = self.eval_every or 0
        epoch = self.steps_per_epoch if self.eval_each_epoch else 0
        return due(every) + due(epoch) - due(lcm(every, epoch))

    def saves_at(self, step: int) -> bool:
        """Whether `save.every` requires a checkpoint after `step`."""
        return step == self.keep_at or bool(self.save_every and step % self.save_every == 0)

    def facts(self, step: int) -> dict[str, Any]:
        """The position of the run after `step` updates, as JSON; ResumePoint reads it."""
        return {
            "fits": self.fits or None,
            "step": step,
            "epoch": self.epoch(step),
            "samples": self.samples(step),
            "starts": {
                "data": self.data_start,
                "schedule": self.schedule_start,
                "samples_before": self.samples_before,
            },
        }


def total_steps(
    epochs: float | None,
    max_steps: int | None,
    steps_per_epoch: int,
    data_start: int = 0,
) -> int:
    """The last step: `max_steps`, or `epochs` after `data_start` if that is earlier.

    Without both, a budget of time ends the run.
    """
    ends = [MOST_STEPS]
    if epochs is not None:
        ends.append(data_start + max(1, round(epochs * steps_per_epoch)))
    if max_steps is not None:
        ends.append(max_steps)
    return min(ends)


def decay_start(decay: int | str, total_steps: int, steps_per_epoch: int, start: int = 0) -> int:
    """The step at which the `decay` of schedule wsd begins; the schedule began at step `start`."""
    return total_steps - duration_steps(
        decay,
        steps_per_epoch,
        max(1, total_steps - start),
    )


def solve(
    settings: TrainingSettings,
    *,
    samples: int,
    global_batch: int,
    micro_batch: int,
    world_size: int,
    units: str,
    flops_per_sample: float | None = None,
    first_step: int = 0,
    starts: StartSteps | None = None,
    until: int | None = None,
    experience: int = 0,
    time_s: float | None = None,
) -> TrainPlan:
    """Solve the training plan for a data set of `samples`. Raises ValueError for a bad duration.

    `micro_batch` × `world_size` divides `global_batch`. Epochs count from the start of the data
    order, `train.max_steps` from the start of the run or of its `experience`. With a
    budget of `time_s` the length is the most that it can be.
    """
    starts = starts or StartSteps()
    steps_per_epoch = samples // global_batch
    epochs = settings.train.epochs
    max_steps = settings.train.max_steps
    if experience and max_steps is not None:
        max_steps += starts.data
    total = total_steps(epochs, max_steps, steps_per_epoch, starts.data)
    plan = TrainPlan(
        total_steps=total,
        steps_per_epoch=steps_per_epoch,
        global_batch=global_batch,
        micro_batch=micro_batch,
        accumulation=global_batch // (micro_batch * world_size),
        world_size=world_size,
        units=units,
        first_step=first_step,
        data_start=starts.data,
        schedule_start=starts.schedule,
        samples_before=starts.samples_before,
        until=until,
        experience=experience,
        dropped_samples=samples % global_batch,
        eval_each_epoch=settings.eval.each_epoch,
        flops_per_sample=flops_per_sample,
        time_s=time_s,
        most_steps=total,
    )
    return with_total(plan, settings, total)


def with_total(plan: TrainPlan, settings: TrainingSettings, total: int) -> TrainPlan:
    """`plan` with another last step, and with what follows from it."""

    def cadence(every: int | str | None) -> int | None:
        if every is None:
            return None
        return max(1, duration_steps(every, plan.steps_per_epoch, total))

    keep_at = None
    if settings.schedule.name == "wsd" and settings.save.last:
        start = plan.schedule_start
        begin = decay_start(settings.schedule.decay, total, plan.steps_per_epoch, start)
        if begin > start:
            keep_at = begin
    return replace(
        plan,
        total_steps=total,
        keep_at=keep_at,
        stop_after=cadence(settings.stop.after),
        keep_every=cadence(settings.save.keep_every),
        eval_every=cadence(settings.eval.every),
        save_every=cadence(settings.save.every),
    )
