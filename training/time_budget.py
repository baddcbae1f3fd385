"""The budget of time of a run: what its parts cost, and how many steps fit into what is left."""

from __future__ import annotations

import json
import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import islice
from math import ceil
from typing import TYPE_CHECKING

from gearshift.training.evaluation.evaluate import evaluate, evaluate_final
from gearshift.training.logging.encoding import encode_bytes
from gearshift.training.settings import MOST_STEPS, SettingError
from gearshift.training.train_plan import Fit, TrainPlan, with_total

if TYPE_CHECKING:
    from torch.nn import Module

    from gearshift.engines.base import World
    from gearshift.models.base import Task
    from gearshift.training.agreement import Interruption
    from gearshift.training.callbacks.base import Facts
    from gearshift.training.data.loader import EvaluationBatches
    from gearshift.training.settings import TrainingSettings

_PROBES = 5
"""Micro-batches of each rank that tell how long an evaluation takes."""
_MEMORY = 0.02
"""Of the budget: the time of a step is a mean that steps so long ago enter with half their weight,
and earlier ones with less."""
_PARTS = 8
"""A fit comes after this part of the steps that are left, one eighth."""
_AIM = 0.985
"""The share of the budget that is planned."""
_SPARE = 0.5
"""The share of what the end takes that is kept over it: no fit follows that corrects it."""
_MOST_SPARE = 0.015
"""Of the budget."""
_FITS_UNTIL = 0.5
"""The share of the budget after which the length stays, unless the run would miss its budget:"""
_MISS = 0.015
"""by this share of the budget, and"""
_NOISE = 5
"""by one part in so many of the time of the steps that are left."""


class TimeBudget:
    """Fits the length of a run to its budget of time, by the clock of one rank.

    A fit is due after the second step of a process, after twice as many, and so on, and later after
    an eighth of the steps that are left: all ranks ask for it after the same steps. Seconds that
    were measured are attributes.
    """

    def __init__(self, time_s: float, plan: TrainPlan, settings: TrainingSettings) -> None:
        self._time_s = time_s
        self._settings = settings
        self._first_step = plan.first_step
        # The step of the newest mark, and the seconds of all steps up to it
        self._step = plan.first_step
        self._steps_s = 0.0
        self._costs_measured = 0
        self.step_s = 0.0
        self.evaluation_s = 0.0
        """Of an evaluation, with its checkpoint if it is the best."""
        self.save_s = 0.0
        self.final_s = 0.0
        """Of what only the end has: metrics, samples, the test split."""

    def is_due(self, step: int, total: int) -> bool:
        """Whether to `mark` the end of `step`, in a run of `total` steps."""
        doubled = self._step - self._first_step
        part = (total - step) // _PARTS
        return step - self._step >= max(1, min(doubled, part))

    def mark(self, step: int, steps_s: float) -> None:
        """Measure steps, the last of which ended `steps_s` seconds after the first of all began.

        Without pauses. The first step of a process compiles and allocates: it is no measure of
        others, and leaves `step_s` 0.
        """
        if self._step > self._first_step:
            seconds = steps_s - self._steps_s
            newest_s = seconds / (step - self._step)
            memory_s = _MEMORY * self._time_s if self.step_s else 0.0
            self.step_s += (newest_s - self.step_s) * seconds / (seconds + memory_s)
        self._step = step
        self._steps_s = steps_s

    def needs_costs(self, total: int) -> bool:
        """Whether to `measure` at this mark, in a run of `total` steps.

        At first, and once more when weights have learned something, and write shorter texts. Not
        later: beside a busy program the end would seem long, and the run end early.
        """
        wanted = 2 if self._step > total // _PARTS else 1
        return self._costs_measured < wanted

    def measure(
        self,
        task: Task,
        module: Module,
        batches: EvaluationBatches,
        test: EvaluationBatches | None,
        interruption: Interruption,
    ) -> None:
        """Measure an evaluation of `batches`, and what the end has beside it. Collective.

        Raises Interrupted.
        """
        self._costs_measured += 1
        # Before the clock: workers start only once in an evaluation, and load meanwhile.
        probes = list(islice(batches, _PROBES))

        def seconds(action: Callable[..., object]) -> float:
            began = time.perf_counter()
            action(task, module, probes, interruption)
            return (time.perf_counter() - began) / len(probes) * batches.rounds

        self.evaluation_s = self.evaluation_s or seconds(evaluate)
        self.final_s = seconds(evaluate_final)
        if test is not None:
            both_s = self.evaluation_s + self.final_s
            self.final_s += both_s * test.rounds / batches.rounds

    def decide(self, plan: TrainPlan, step: int, used_s: float) -> Facts:
        """The facts of an event "fitted" after `step` updates, which took `used_s` with all else.

        "needed_s" are the seconds of a run that ends now.
        """
        rest_s = partial(self._rest_s, plan, step)
        # Half a step more: the last one that fits is as often before the aim as after it.
        aim_s = min(_AIM * self._time_s + self.step_s / 2, self._time_s) - used_s
        total = plan.total_steps
        until = plan.evaluates_until
        miss_s = abs(rest_s(total, until) - aim_s)
        noise_s = max(_MISS * self._time_s, (total - step) * self.step_s / _NOISE)
        if not plan.fits or used_s < _FITS_UNTIL * self._time_s or miss_s > noise_s:
            totals = range(step + 1, plan.most_steps + 1)
            fitting = bisect_right(totals, aim_s, key=rest_s)
            unused_s = max(aim_s - rest_s(step + fitting), 0.0)
            until = MOST_STEPS
            if unused_s > self.step_s and fitting < len(totals):
                # An evaluation does not fit: steps do instead of it and of later ones.
                until = step + fitting - 1
                fitting += int(unused_s / self.step_s)
            # A last step has the last learning rate.
            total = min(step + max(1, fitting), plan.most_steps)
        return {
            "total_steps": total,
            "evaluates_until": min(until, total),
            "is_refit": bool(plan.fits),
            "needed_s": used_s + rest_s(step),
            "time_s": self._time_s,
            "used_s": used_s,
            "step_s": self.step_s,
            "evaluation_s": self.evaluation_s,
            "save_s": self.save_s,
            "final_s": self.final_s,
        }

    def agree(self, world: World, plan: TrainPlan, step: int, used_s: float) -> Facts:
        """What rank 0 decides. Collective.

        Raises SettingError if a run that starts has no time for a step and its end.
        """
        content = world.broadcast(encode_bytes(self.decide(plan, step, used_s)))
        facts: Facts = json.loads(content)
        if facts["needed_s"] > facts["time_s"] and not plan.fits:
            shortest = f"{ceil((1 + _SPARE) * facts['needed_s'])}s"
            raise SettingError(
                "train.time",
                f"{facts['time_s']:g}s",
                "is shorter than a step and an evaluation take here",
                f"at least {shortest}",
                fix=f"--for {shortest}",
            )
        return facts

    def _rest_s(
        self, plan: TrainPlan, step: int, total: int, evaluates_until: int = MOST_STEPS
    ) -> float:
        """Seconds from `step` to the end of a run of `total` steps."""
        plan = with_total(plan, self._settings, total)
        before = step - 1
        last = max(before, min(total - 1, evaluates_until))
        evaluations = plan.evaluations(before, last)
        steps = total - step
        saves = steps / (plan.save_every or MOST_STEPS)
        end_s = self._settings.eval.last * self.evaluation_s + self.final_s
        end_s += self._settings.save.last * self.save_s
        end_s += min(_SPARE * end_s, _MOST_SPARE * self._time_s)
        return steps * self.step_s + evaluations * self.evaluation_s + saves * self.save_s + end_s


def fitted(plan: TrainPlan, settings: TrainingSettings, fit: Fit) -> TrainPlan:
    """`plan` from `fit` on. A decay that has begun keeps the checkpoint before it."""
    longer = with_total(plan, settings, fit.total_steps)
    keep_at = plan.keep_at
    if keep_at is not None and keep_at > fit.step:
        # The decay of a run that became shorter begins now, not at a step that has passed.
        keep_at = max(longer.keep_at or 0, fit.step)
    return replace(longer, keep_at=keep_at, fits=(*plan.fits, fit))
