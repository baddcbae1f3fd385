"""The budget of time of a run: what its parts cost, and how many steps fit into what is left."""

from __future__ import annotations

import json
import time
from bisect import bisect_right
from collections import deque
from dataclasses import replace
from itertools import islice
from math import ceil
from typing import TYPE_CHECKING

from gearshift.models.base import HasFinalMetric
from gearshift.training.evaluation.evaluate import measure_batches
from gearshift.training.logging.encoding import encode_bytes
from gearshift.training.settings import SettingError
from gearshift.training.train_plan import Fit, TrainPlan, with_total

if TYPE_CHECKING:
    from torch.nn import Module

    from gearshift.engines.base import World
    from gearshift.models.base import Metric, Task
    from gearshift.training.agreement import Interruption
    from gearshift.training.callbacks.base import Facts
    from gearshift.training.data.loader import EvaluationBatches
    from gearshift.training.settings import TrainingSettings

_PROBES = 5
"""Micro-batches of each rank that tell how long an evaluation takes."""
_WINDOW = 8
"""The time of a step is the mean over so many, once there are so many."""
_PARTS = 8
"""The next fit comes after this part of the steps that are left, one eighth."""
_NOISE = 20
"""A length stays that would change by less than one part in so many of the steps left: only a
machine that became slower or faster changes the schedule. The last steps are fitted exactly."""
_AIM = 0.99
"""The share of the budget that is planned."""
_SPARE = 0.5
"""The share of what the end takes that is kept over it: no fit follows that corrects it."""
_MOST_SPARE = 0.025
"""Of the budget."""


class TimeBudget:
    """Fits the length of a run to its budget of time, by the clock of one rank.

    A fit is due after the second step of a process, after twice as many, and so on, and later after
    an eighth of the steps that are left: all ranks ask for it after the same steps. Seconds that
    were measured are attributes.
    """

    def __init__(self, time_s: float, plan: TrainPlan, settings: TrainingSettings) -> None:
        self._time_s = time_s
        self._settings = settings
        self._evaluates_last = int(settings.eval.last)
        self._saves_last = int(settings.save.last)
        self._first_step = plan.first_step
        self._next = plan.first_step + 1
        # Steps, and the seconds of steps when they had ended
        self._marks: deque[tuple[int, float]] = deque()
        self._is_halfway = False
        self.needs_costs = True
        """Whether to measure the other seconds: at first, and once more when weights have learned
        something, and write shorter texts."""
        self.step_s = 0.0
        self.evaluation_s = 0.0
        """Of an evaluation, with its checkpoint if it is the best."""
        self.save_s = 0.0
        self.final_s = 0.0
        """Of what only the end has: metrics, samples, the test split."""

    def is_due(self, step: int) -> bool:
        """Whether `mark` is called after `step`."""
        return step == self._next

    def mark(self, step: int, steps_s: float) -> bool:
        """Whether steps were measured, `steps_s` seconds after the first began, without pauses.

        The first step of a process compiles and allocates: it is no measure of others.
        """
        self._marks.append((step, steps_s))
        while len(self._marks) > 2 and self._marks[1][0] <= step - _WINDOW:
            self._marks.popleft()
        before, before_s = self._marks[0]
        if before == step:
            return False
        self.step_s = (steps_s - before_s) / (step - before)
        return True

    def decide(self, plan: TrainPlan, step: int, used_s: float) -> Facts:
        """The facts of an event "fitted" after `step` updates, which took `used_s` with all else.

        "needed_s" are the seconds of a run that ends now.
        """
        left_s = _AIM * self._time_s - used_s

        def seconds(total: int) -> float:
            return (total - step) * self.step_s + self._end_s(plan, total, step)

        most = min(plan.most_steps, step + max(0, int(left_s / self.step_s)))
        fitting = bisect_right(range(step + 1, most + 1), left_s, key=seconds)
        total = step + max(1, fitting)  # a last step has the last learning rate
        is_close = abs(total - plan.total_steps) * _NOISE <= plan.total_steps - step
        if plan.fits and is_close:
            total = plan.total_steps
        return {
            "total_steps": total,
            "is_refit": bool(plan.fits),
            "needed_s": used_s + seconds(step),
            "time_s": self._time_s,
            "used_s": used_s,
            "step_s": self.step_s,
            "evaluation_s": self.evaluation_s,
            "save_s": self.save_s,
            "final_s": self.final_s,
        }

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
        self.needs_costs = False

        def seconds(metric: Metric) -> float:
            # Before the clock: workers start only once in an evaluation, and load meanwhile.
            probes = list(islice(batches, _PROBES))
            began = time.perf_counter()
            measure_batches(metric, module, probes, interruption)
            return (time.perf_counter() - began) / len(probes) * batches.rounds

        if not self.evaluation_s:
            self.evaluation_s = seconds(task.metric())
        final = task.final_metric() if isinstance(task, HasFinalMetric) else None
        self.final_s = 0.0 if final is None else seconds(final)
        if test is not None:
            both_s = self.evaluation_s + self.final_s
            self.final_s += both_s * test.rounds / batches.rounds

    def agree(self, world: World, plan: TrainPlan, step: int, used_s: float) -> Facts:
        """What rank 0 decides. Collective.

        Raises SettingError if a run that starts has no time for its end.
        """
        content = world.broadcast(encode_bytes(self.decide(plan, step, used_s)))
        facts: Facts = json.loads(content)
        if facts["needed_s"] > facts["time_s"] and not plan.fits:
            raise too_short(facts)
        return facts

    def _end_s(self, plan: TrainPlan, total: int, step: int) -> float:
        """Seconds of evaluations and saves from `step` to the end of a run of `total` steps."""
        plan = with_total(plan, self._settings, total)
        before = step - 1
        last = max(total - 1, before)
        evaluations = plan.evaluations(before, last)
        saves = 0
        if plan.save_every:
            saves = last // plan.save_every - before // plan.save_every
        end_s = self._evaluates_last * self.evaluation_s + self._saves_last * self.save_s
        end_s += self.final_s
        end_s += min(_SPARE * end_s, _MOST_SPARE * self._time_s)
        return evaluations * self.evaluation_s + saves * self.save_s + end_s

    def plan_next(self, step: int, total: int) -> None:
        """Let the next fit come after a while, in a run of `total` steps."""
        doubled = step - self._first_step
        part = max(1, (total - step) // _PARTS)
        if part < doubled and not self._is_halfway:
            self._is_halfway = self.needs_costs = True
        self._next = step + min(doubled, part)


def too_short(facts: Facts) -> SettingError:
    """The error of a budget without time for a step and the end of a run; facts as of `decide`."""
    shortest = f"{ceil((1 + _SPARE) * facts['needed_s'])}s"
    return SettingError(
        "train.time",
        f"{facts['time_s']:g}s",
        "is shorter than a step and an evaluation take here",
        f"at least {shortest}",
        fix=f"--for {shortest}",
    )


def fitted(plan: TrainPlan, settings: TrainingSettings, fit: Fit) -> TrainPlan:
    """`plan` from `fit` on. A decay that has begun keeps the checkpoint before it."""
    longer = with_total(plan, settings, fit.total_steps)
    keep_at = longer.keep_at
    if plan.keep_at is not None and plan.keep_at <= fit.step:
        keep_at = plan.keep_at
    return replace(longer, keep_at=keep_at, fits=(*plan.fits, fit))
