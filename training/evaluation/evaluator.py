"""The evaluator of a run: results, the best score, early stopping and the noise control."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from models.base import Goal
from training.callbacks.base import Emit, EvalResult, Facts, Numbers
from training.checkpoint.manifest import Score
from training.evaluation.early_stopping import Direction, EarlyStopping, Target, parse_target
from training.evaluation.evaluate import evaluate, evaluate_final, metric_names
from training.interruption import Interrupted
from training.settings import SettingError

if TYPE_CHECKING:
    from torch.nn import Module

    from models.base import Task
    from training.data.loader import EvaluationBatches
    from training.evaluation.forgetting import Forgetting
    from training.interruption import Interruption
    from training.settings import TrainingSettings
    from training.stop_reason import StopReason

_DIRECTIONS: tuple[Direction, ...] = ("min", "max")


class Evaluator:
    """Evaluates the validation split by `eval.metric`, or the goal of the family. Collective."""

    def __init__(
        self,
        settings: TrainingSettings,
        batches: EvaluationBatches,
        forgetting: Forgetting | None = None,
        data_start: int = 0,
    ):
        """With `forgetting`, evaluates old and new held-out data of an experience.

        `data_start` is the step at which the data order began.
        """
        self._forgetting, self._data_start = forgetting, data_start
        self._metric, self._stop_at = settings.eval.metric, settings.stop.at
        self._target: Target | None = None
        self._new_early_stopping = partial(EarlyStopping, settings.stop, settings.save.keep_best)
        self._early_stopping = self._new_early_stopping()
        self._batches = batches
        used, whole = self._samples("val")
        self._chosen = used if used < whole else None  # Samples of an evaluation; None: the whole split
        self._scored = self._chosen  # The same of the scores so far
        self._goal: Goal | None = None
        self._metrics: Numbers = {}
        self.score: Score | None = None
        """Of the last evaluation, if its checkpoint is among the best to keep."""

    def _samples(self, split: str) -> tuple[int, int]:
        """Samples of an evaluation of `split`, and of the whole split."""
        if self._forgetting is not None:
            return self._forgetting.samples(split)
        return self._batches.counts()

    def start(self, task: Task, module: Module, interruption: Interruption) -> None:
        """Resolve `eval.metric` and `stop.at`. Raises SettingError for an unknown metric."""
        self._goal = task.goal
        target = None if self._stop_at is None else parse_target(self._stop_at)
        if self._metric is None and (target is None or target.metric == task.goal.metric):
            names = [task.goal.metric]
        else:
            # One forward pass now: a typing error must not end the run at its first evaluation.
            names = metric_names(task, module, self._batches, interruption)
        if self._metric is not None:
            self._goal = goal_of(self._metric, task.goal, names)
        if target is not None:
            self._target = target_of(target, self._goal, names)

    def evaluate_before(
        self, module: Module, interruption: Interruption, averaged: AbstractContextManager[None]
    ) -> None:
        """Measure the metrics before an experience, unless they are known. Raises Interrupted.

        `averaged` puts the average of the weights in place.
        """
        if self._forgetting is not None and not self._forgetting.is_before_known:
            with averaged:
                self._forgetting.evaluate_before(module, interruption)

    def evaluate(
        self,
        task: Task,
        module: Module,
        interruption: Interruption,
        step: int,
        *,
        is_last: bool,
        is_due: bool,
    ) -> Sequence[EvalResult]:
        """The results after `step` updates by split; the last one decides about the best.

        The last evaluation of a run has the final metrics of the task as well; `is_due` as
        EarlyStopping.add. Raises Interrupted: then nothing counts as evaluated.
        """
        assert self._goal is not None
        with self._undone_if_interrupted():
            began = time.perf_counter()
            parts: dict[str, dict[str, float]] = {}
            if self._forgetting is None:
                metrics = evaluate(task, module, self._batches, interruption)
            else:
                parts = self._forgetting.evaluate(module, interruption)
                metrics = parts.pop("val")
            self._metrics = metrics
            if self._scored != self._chosen:  # scores on other samples cannot be compared
                self._early_stopping, self._scored = self._new_early_stopping(), self._chosen
            # A goal that is undefined decides nothing, but is no success either.
            value = metrics.setdefault(self._goal.metric, math.nan)
            is_best = self._early_stopping.add(step, value, self._goal.direction, is_due=is_due)
            self.score = None
            if self._early_stopping.is_among_best:
                where = (self._data_start, self._chosen)
                self.score = Score(self._goal.metric, value, self._goal.direction, *where)
            seconds, final_s = time.perf_counter() - began, 0.0
            # An experience compares metrics before and after it; those of the end have no before.
            if self._forgetting is None and (is_last or self.reason_to_stop is not None):
                final = evaluate_final(task, module, self._batches, interruption)
                metrics = {**metrics, **final}
                final_s = time.perf_counter() - began - seconds
            results = [
                EvalResult(step, split, measured, False, seconds, 0.0, *self._samples(split))
                for split, measured in parts.items()
            ]
            times, counts = (seconds + final_s, final_s), self._samples("val")
            return [*results, EvalResult(step, "val", metrics, is_best, *times, *counts)]

    @contextmanager
    def _undone_if_interrupted(self) -> Iterator[None]:
        before = self.facts()
        try:
            yield
        except Interrupted:
            self.resume(before)
            self.score = None
            raise

    @property
    def deciding(self) -> dict[str, float]:
        """The metrics of the last evaluation by which it counts: the goal, the validation loss."""
        names = ("val_loss", "" if self._goal is None else self._goal.metric)
        return {name: self._metrics[name] for name in names if name in self._metrics}

    @property
    def value(self) -> tuple[float, int] | None:
        """The goal in the last evaluation, and 1 if larger is better, else -1; None: no goal."""
        if self._goal is None or self._goal.metric not in self._metrics:
            return None
        return self._metrics[self._goal.metric], 1 if self._goal.direction == "max" else -1

    @property
    def best(self) -> dict[str, Any] | None:
        """Metric, value and step of the best evaluation so far."""
        best = self._early_stopping.best
        if best is None or self._goal is None:
            return None
        score = {"metric": self._goal.metric, **best}
        whole = self._samples("val")[1]
        counts = {"samples": self._scored or whole, "split_samples": whole}
        return {**score, "direction": self._goal.direction, **counts}

    @property
    def reason_to_stop(self) -> str | None:
        if self._scored != self._chosen:  # by scores on other samples
            return None
        if self._target is not None and self._target.is_reached(self._metrics):
            value = self._metrics[self._target.metric]
            return f"stop.at: {self._target.metric} is {value:.6g} ({self._target.text()})"
        if not self._early_stopping.is_out_of_patience or self._goal is None:
            return None
        waited = self._early_stopping.waited
        noun = "evaluation" if waited == 1 else "evaluations"
        return f"stop.patience: {self._goal.metric} did not improve in {waited} {noun}"

    def check_noise_control(self, task: Task, report: Emit) -> StopReason | None:
        """A failure of the run if its noise control is not at chance in the last evaluation."""
        bands = task.facts().get("control")
        if not bands or not self._metrics:
            return None
        from training.evaluation import noise_control  # for data without information only

        return noise_control.check(bands, self._metrics, report)

    def facts(self) -> dict[str, Any]:
        forgetting = {} if self._forgetting is None else {"forgetting": self._forgetting.facts()}
        newest = {"metrics": dict(self._metrics), "samples": self._scored}
        return {**self._early_stopping.facts(), **newest, **forgetting}

    def resume(self, facts: Facts, *, keeps_best: bool = True) -> None:
        """Continue from the facts of an earlier process.

        Unless it `keeps_best`, only later evaluations count as the best; patience continues.
        """
        best: Facts = {} if keeps_best else {"best": None, "best_values": ()}
        self._early_stopping.resume({**facts, **best})
        self._scored = facts.get("samples")
        known = facts.get("metrics", {})
        self._metrics = {name: float(value) for name, value in known.items()}
        if self._forgetting is not None:
            self._forgetting.resume(facts.get("forgetting", {}))

    @property
    def experience(self) -> dict[str, Any] | None:
        """Metrics of old and new data before and after an experience; None: there is none."""
        summary = None if self._forgetting is None else self._forgetting.summary()
        if summary is None or self._goal is None:
            return None
        return {"number": summary["number"], "metric": self._goal.metric, **summary}

    def close(self) -> None:
        self._batches.close()
        if self._forgetting is not None:
            self._forgetting.close()


def target_of(target: Target, goal: Goal, names: list[str]) -> Target:
    """The target of `stop.at` with its direction, which `=` takes from the `goal`.

    Raises SettingError if the metric is not one of `names`.
    """
    _check_name("stop.at", target.text(), target.metric, names)
    if (directed := target.directed(goal)) is None:
        raise _undirected("stop.at", target.text(), [target.text(sign) for sign in ("<=", ">=")])
    return directed


def goal_of(written: str, family_goal: Goal, names: list[str]) -> Goal:
    """The goal written as `NAME min` or `NAME max`; the family's own metric needs no direction.

    Raises SettingError if NAME is not one of `names`.
    """
    name, _, direction = (text.strip() for text in written.strip().partition(" "))
    _check_name("eval.metric", written, name, names)
    if name == family_goal.metric and not direction:
        return family_goal
    known = {f"{known}": Goal(name, known) for known in _DIRECTIONS}
    if direction not in known:
        raise _undirected("eval.metric", written, [f"{name} {each}" for each in known])
    return known[direction]


def _check_name(key: str, written: str, name: str, names: list[str]) -> None:
    if name not in names:
        raise SettingError(key, written, "names no metric of this task", ", ".join(names))


def _undirected(key: str, written: str, allowed: list[str]) -> SettingError:
    text = " or ".join(f"'{each}'" for each in allowed)
    return SettingError(key, written, "does not say which way is better", text)
