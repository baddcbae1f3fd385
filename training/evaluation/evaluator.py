"""The judge of a run: evaluates it, tells the best evaluation, and when to wait no longer."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from models.base import Goal
from training.callbacks.base import EvalResult
from training.checkpoint.manifest import Score
from training.evaluation import noise_control
from training.evaluation.early_stopping import (
    Direction,
    EarlyStopping,
    Target,
    alternatives,
    parse_target,
)
from training.evaluation.evaluate import evaluate, metric_names
from training.settings import SettingError

if TYPE_CHECKING:
    from torch.nn import Module

    from engines.base import World
    from models.base import Task
    from training.data.loader import EvaluationBatches
    from training.evaluation.evaluate import Forgetting
    from training.settings import Settings
    from training.stop_reason import StopReason

_DIRECTIONS: tuple[Direction, ...] = ("min", "max")


class Evaluator:
    """Evaluates on the validation split, by the family's goal or the person's own. Collective."""

    def __init__(
        self,
        settings: Settings,
        batches: EvaluationBatches,
        forgetting: Forgetting | None = None,
        since: int = 0,
    ):
        """With `forgetting` an experience is judged, by old and new held-out parts together.

        `since` is the step at which the order of the data began.
        """
        self._forgetting, self._since = forgetting, since
        self._metric = settings.eval.metric
        self._at = settings.stop.at
        self._target: Target | None = None
        self._stopping = EarlyStopping(settings.stop, settings.save.keep_best)
        self._batches = batches
        self._goal: Goal | None = None
        self._metrics: Mapping[str, float] = {}
        self.score: Score | None = None
        """Of the last evaluation, where it is among the best that are to be kept."""

    def start(self, task: Task, module: Module, world: World) -> None:
        """Settle what to judge by. Raises SettingError where there is no such metric."""
        self._goal = task.goal
        aim = None if self._at is None else parse_target(self._at)
        if self._metric is None and (aim is None or aim.metric == task.goal.metric):
            names = [task.goal.metric]
        else:
            # One forward pass now, or a slip of the pen would end the run at its first evaluation.
            names = metric_names(task, module, self._batches, world)
        if self._metric is not None:
            self._goal = goal_of(self._metric, task.goal, names)
        if aim is not None:
            self._target = target_of(aim, self._goal, names)

    def look_before(
        self, module: Module, world: World, averaged: AbstractContextManager[None]
    ) -> None:
        """Measure what an experience begins with, unless that is known; the weights are `averaged`."""
        if self._forgetting is not None and not self._forgetting.looked_before:
            with averaged:
                self._forgetting.look_before(module, world)

    def evaluate(self, task: Task, module: Module, world: World, step: int) -> Sequence[EvalResult]:
        """The metrics after `step` updates, split by split; the last is judged: is it the best?"""
        assert self._goal is not None
        began = time.perf_counter()
        apart: dict[str, dict[str, float]] = {}
        if self._forgetting is None:
            metrics = evaluate(task, module, self._batches, world)
        else:
            apart = self._forgetting.evaluate(module, world)
            metrics = apart.pop("val")
        self._metrics = metrics
        value = metrics[self._goal.metric]
        is_best = self._stopping.judge(step, value, self._goal.direction)
        self.score = None
        if self._stopping.is_among_best:
            goal = self._goal
            self.score = Score(goal.metric, value, goal.direction, self._since)
        seconds = time.perf_counter() - began
        told = [EvalResult(step, split, found, False, seconds) for split, found in apart.items()]
        return [*told, EvalResult(step, "val", metrics, is_best, seconds)]

    @property
    def best(self) -> dict[str, Any] | None:
        """Metric, value and step of the best evaluation so far."""
        best = self._stopping.best
        if best is None or self._goal is None:
            return None
        found = {"metric": self._goal.metric, "value": best.value, "step": best.step}
        return {**found, "direction": self._goal.direction}

    @property
    def reason_to_stop(self) -> str | None:
        """Why to stop now; None: go on."""
        if self._target is not None and self._target.is_reached(self._metrics):
            value = self._metrics[self._target.metric]
            return f"{self._target.metric} is {value:.6g}: stop.at {self._target.text()} is reached"
        if not self._stopping.is_out_of_patience or self._goal is None:
            return None
        waited = self._stopping.waited
        times = "evaluation" if waited == 1 else "evaluations"
        return f"{self._goal.metric} did not improve in {waited} {times}"

    def leak(self, task: Task, tell: noise_control.Tell) -> StopReason | None:
        """A fault of the run whose noise control was not at chance in the last evaluation."""
        return noise_control.ending(task, self._metrics, tell) if self._metrics else None

    def facts(self) -> dict[str, Any]:
        """What `resume` needs, as plain numbers."""
        apart = {} if self._forgetting is None else {"apart": self._forgetting.facts()}
        return {**self._stopping.facts(), "metrics": dict(self._metrics), **apart}

    def resume(self, facts: Mapping[str, Any]) -> None:
        """Go on from what another process wrote down."""
        self._stopping.resume(facts)
        known = facts.get("metrics", {})
        self._metrics = {name: float(value) for name, value in known.items()}
        if self._forgetting is not None:
            self._forgetting.resume(facts.get("apart", {}))

    @property
    def learnt(self) -> dict[str, Any] | None:
        """What an experience made of old and new data; None: this is none."""
        learnt = None if self._forgetting is None else self._forgetting.learnt()
        if learnt is None or self._goal is None:
            return None
        return {"number": learnt["number"], "metric": self._goal.metric, **learnt}

    def tell_learnt(self, tell: noise_control.Tell) -> None:
        """An event with what an experience made of old and new data, at its end."""
        if learnt := self.learnt:
            tell("experience_trained", learnt)

    def close(self) -> None:
        """End the workers."""
        self._batches.close()
        if self._forgetting is not None:
            self._forgetting.close()


def target_of(aim: Target, goal: Goal, names: list[str]) -> Target:
    """The aim of `stop.at`, and which way is better; for `=` that of the `goal`.

    Raises SettingError where `names`, the metrics there are, have no such name.
    """
    if aim.metric not in names:
        raise SettingError("stop.at", aim.text(), "is no metric of this task", ", ".join(names))
    aimed = aim.aimed(goal)
    if aimed is None:
        allowed = " or ".join(f"'{text}'" for text in alternatives(aim))
        raise SettingError("stop.at", aim.text(), "does not say which way is better", allowed)
    return aimed


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
