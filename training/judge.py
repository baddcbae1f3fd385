"""The judge of a run: evaluates it, tells the best evaluation, and when to wait no longer."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from models.base import Goal
from training import control
from training.checkpoint.manifest import Verdict
from training.evaluate import evaluate, metric_names
from training.hooks import Evaluation
from training.settings import SettingError
from training.stopping import Direction, Stopping

if TYPE_CHECKING:
    from torch.nn import Module

    from engines.base import World
    from models.base import Task
    from training.data.loader import EvaluationBatches
    from training.ending import Ending
    from training.settings import Settings

_DIRECTIONS: tuple[Direction, ...] = ("min", "max")


class Judge:
    """Evaluates on the validation split, by the family's goal or the person's own. Collective."""

    def __init__(self, settings: Settings, batches: EvaluationBatches):
        self._metric = settings.eval.metric
        self._stopping = Stopping(settings.stop, settings.save.keep_best)
        self._batches = batches
        self._goal: Goal | None = None
        self._metrics: Mapping[str, float] = {}
        self.verdict: Verdict | None = None
        """Of the last evaluation, where it is among the best that are to be kept."""

    def start(self, task: Task, module: Module, world: World) -> None:
        """Settle what to judge by. Raises SettingError where there is no such metric."""
        self._goal = task.goal
        if self._metric is not None:
            # One forward pass now, or a slip of the pen would end the run at its first evaluation.
            names = metric_names(task, module, self._batches, world)
            self._goal = goal_of(self._metric, task.goal, names)

    def evaluate(self, task: Task, module: Module, world: World, step: int) -> Evaluation:
        """The metrics after `step` updates, and whether they are the best so far."""
        assert self._goal is not None
        began = time.perf_counter()
        metrics = evaluate(task, module, self._batches, world)
        self._metrics = metrics
        value = metrics[self._goal.metric]
        is_best = self._stopping.judge(step, value, self._goal.direction)
        self.verdict = None
        if self._stopping.is_among_best:
            self.verdict = Verdict(self._goal.metric, value, self._goal.direction)
        return Evaluation(step, "val", metrics, is_best, time.perf_counter() - began)

    @property
    def best(self) -> dict[str, Any] | None:
        """Metric, value and step of the best evaluation so far."""
        best = self._stopping.best
        if best is None or self._goal is None:
            return None
        return {"metric": self._goal.metric, "value": best.value, "step": best.step}

    @property
    def reason_to_stop(self) -> str | None:
        """Why to stop now; None: go on."""
        if not self._stopping.is_out_of_patience or self._goal is None:
            return None
        waited = self._stopping.waited
        times = "evaluation" if waited == 1 else "evaluations"
        return f"{self._goal.metric} did not improve in {waited} {times}"

    def leak(self, task: Task, tell: control.Tell) -> Ending | None:
        """A fault of the run whose noise control was not at chance in the last evaluation."""
        return control.ending(task, self._metrics, tell) if self._metrics else None

    def facts(self) -> dict[str, Any]:
        """What `resume` needs, as plain numbers."""
        return self._stopping.facts()

    def resume(self, facts: Mapping[str, Any]) -> None:
        """Go on from what another process wrote down."""
        self._stopping.resume(facts)

    def close(self) -> None:
        """End the workers."""
        self._batches.close()


def goal_of(written: str, own: Goal, names: list[str]) -> Goal:
    """The goal that a person wrote as `NAME min` or `NAME max`; of the family's own, NAME will do.

    Raises SettingError where `names`, the metrics there are, have no such name.
    """
    name, _, direction = written.strip().partition(" ")
    direction = direction.strip()
    if name not in names:
        raise SettingError("eval.metric", written, "is no metric of this task", ", ".join(names))
    if name == own.metric and direction in ("", own.direction):
        return own
    for way in _DIRECTIONS:
        if direction == way:
            return Goal(name, way)
    raise SettingError(
        "eval.metric",
        written,
        "does not say which way is better",
        " or ".join(f"'{name} {way}'" for way in _DIRECTIONS),
    )
