"""The numbers of a run, solved from its settings and the size of its data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from training import duration
from training.callbacks.base import Action, TrainPlan
from training.checkpoint.resume_point import Before, Starts

if TYPE_CHECKING:
    from training.data.order import DataOrder
    from training.settings import Settings


def solve(
    settings: Settings,
    order: DataOrder,
    *,
    micro_batch: int,
    world_size: int,
    units: str,
    flops_per_sample: float | None = None,
    before: Before | None = None,
    until: int | None = None,
    experience: int = 0,
) -> TrainPlan:
    """Steps in all, and how often to evaluate and save. Raises ValueError where a length is none.

    `micro_batch` × `world_size` divides the global batch of `order`. Epochs are counted from where
    the order of the data began, `train.max_steps` from the beginning of the run; those of an
    `experience` from its own.
    """
    starts = before.starts if before else Starts()
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


def due(train_plan: TrainPlan, step: int) -> Action:
    """What the cadences of a run want after `step` updates."""
    asked = Action.NOTHING
    since = step - train_plan.data_start
    ends_epoch = train_plan.eval_each_epoch and since % train_plan.steps_per_epoch == 0
    if ends_epoch or (train_plan.eval_every and since % train_plan.eval_every == 0):
        asked |= Action.EVALUATE
    if train_plan.save_every and step % train_plan.save_every == 0:
        asked |= Action.SAVE
    return asked
