"""The evaluator of a run: results, the best score, early stopping and the noise control."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gearshift.training.agreement import Interrupted
from gearshift.training.callbacks.base import Emit, EvalResult, Facts, Numbers, StopReason
from gearshift.training.checkpoint.manifest import Score
from gearshift.training.evaluation.early_stopping import EarlyStopping, Target, parse_target
from gearshift.training.evaluation.evaluate import (
    ALL,
    NEW,
    OLD,
    HeldOut,
    evaluate_final,
    measure_batches,
)
from gearshift.training.logging.encoding import counted

if TYPE_CHECKING:
    from torch.nn import Module

    from gearshift.training.agreement import Interruption
    from gearshift.training.settings import TrainingSettings


class Evaluator:
    """Evaluates the validation split by `eval.metric`, or the goal of the family. Collective."""

    def __init__(self, settings: TrainingSettings, held_out: HeldOut, data_start: int = 0):
        """`data_start` is the step at which the data order began."""
        self._held_out = held_out
        self._data_start = data_start
        self._task, self._batches = held_out.parts[0]
        self._metric = settings.eval.metric
        self._stop_at = settings.stop.at
        self._target: Target | None = None
        self._early_stopping = EarlyStopping(settings.stop, settings.save.keep_best)
        # Samples of an evaluation; None: the whole split
        used, whole = held_out.counts()
        self._chosen = used if used < whole else None
        self._goal = self._task.goal
        self._metrics: Numbers = {}
        # By split, "before" an experience and "after" it, in its last evaluation.
        self._compared: dict[str, Mapping[str, Numbers]] = {}
        self.score: Score | None = None
        """Of the last evaluation, if its checkpoint is among the best to keep."""

    def start(self, module: Module, interruption: Interruption) -> None:
        """Resolve `eval.metric` and `stop.at`. Raises SettingError for an unknown metric."""
        target = None if self._stop_at is None else parse_target(self._stop_at)
        if self._metric is None and (target is None or target.metric == self._goal.metric):
            names = [self._goal.metric]
        else:
            # One micro-batch now: a typing error must not end the run at its first evaluation.
            first = [next(iter(self._batches))]
            names = sorted(measure_batches(self._task.metric(), module, first, interruption))
        if self._metric is not None:
            from gearshift.training.evaluation.goals import goal_of

            self._goal = goal_of(self._metric, self._goal, names)
        if target is not None:
            from gearshift.training.evaluation.goals import target_of

            self._target = target_of(target, self._goal, names)

    def evaluate_before(
        self,
        module: Module,
        interruption: Interruption,
        averaged: AbstractContextManager[None],
    ) -> None:
        """Measure the metrics before an experience, unless they are known. Raises Interrupted.

        `averaged` puts the average of the weights in place.
        """
        if self._held_out.number and "before" not in self._compared:
            with averaged:
                self._compared["before"] = self._held_out.measure(module, interruption)

    def evaluate(
        self,
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
        known = self.facts()
        goal = self._goal
        try:
            began = time.perf_counter()
            measured = self._held_out.measure(module, interruption)
            self._compared["after"] = measured
            metrics = measured[ALL]
            self._metrics = metrics
            # A goal that is undefined decides nothing, but is no success either.
            value = metrics.setdefault(goal.metric, math.nan)
            is_best = self._early_stopping.add(step, value, goal.direction, is_due=is_due)
            self.score = None
            if self._early_stopping.is_among_best:
                self.score = Score(
                    goal.metric,
                    value,
                    goal.direction,
                    self._data_start,
                    self._chosen,
                )
            seconds = time.perf_counter() - began

            # An experience compares metrics before and after it; those of the end have no before.
            final_s = 0.0
            if not self._held_out.number and (is_last or self.reason_to_stop is not None):
                final = evaluate_final(self._task, module, self._batches, interruption)
                metrics = {**metrics, **final}
                final_s = time.perf_counter() - began - seconds
        except Interrupted:
            self.resume(known)
            self.score = None
            raise

        counts = self._held_out.counts
        results = []
        for split, part in measured.items():
            results.append(EvalResult(step, split, part, False, seconds, 0.0, *counts(split)))
        results[-1] = replace(
            results[-1],
            metrics=metrics,
            is_best=is_best,
            seconds=seconds + final_s,
            final_s=final_s,
        )
        return results

    @property
    def deciding(self) -> dict[str, float]:
        """The metrics of the last evaluation by which it counts: the goal, the validation loss."""
        names = ("val_loss", self._goal.metric)
        return {name: self._metrics[name] for name in names if name in self._metrics}

    @property
    def value(self) -> tuple[float, int] | None:
        """The goal in the last evaluation, and 1 if larger is better, else -1; None: none yet."""
        if self._goal.metric not in self._metrics:
            return None
        return self._metrics[self._goal.metric], 1 if self._goal.direction == "max" else -1

    @property
    def best(self) -> dict[str, Any] | None:
        """Metric, value and step of the best evaluation so far."""
        best = self._early_stopping.best
        if best is None:
            return None
        _, whole = self._held_out.counts()
        return {
            "metric": self._goal.metric,
            **best,
            "direction": self._goal.direction,
            "samples": self._chosen or whole,
            "split_samples": whole,
        }

    @property
    def reason_to_stop(self) -> str | None:
        target = self._target
        if target is not None and target.is_reached(self._metrics):
            value = self._metrics[target.metric]
            return f"stop.at: {target.metric} is {value:.6g} ({target.text()})"
        if not self._early_stopping.is_out_of_patience:
            return None
        waited = counted(self._early_stopping.waited, "evaluation")
        return f"stop.patience: {self._goal.metric} did not improve in {waited}"

    def check_noise_control(self, report: Emit) -> StopReason | None:
        """A failure of the run if its noise control is not at chance in the last evaluation."""
        bands = self._task.facts().get("control")
        if not bands:
            return None
        from gearshift.training.evaluation.goals import check_noise

        return check_noise(bands, self._metrics, report)

    def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = {"metrics": dict(self._metrics), "samples": self._chosen}
        if self._held_out.number:
            facts["forgetting"] = dict(self._compared)
        return {**self._early_stopping.facts(), **facts}

    def resume(self, facts: Facts, *, keeps_best: bool = True) -> None:
        """Continue from the facts of an earlier process.

        Unless it `keeps_best`, only later evaluations count as the best; patience continues. Scores
        on other samples cannot be compared: nothing of them counts.
        """
        if facts.get("samples") == self._chosen:
            if not keeps_best:
                facts = {**facts, "best": None, "best_values": ()}
            self._early_stopping.resume(facts)
            self._metrics = _numbers(facts.get("metrics", {}))
        self._compared = {}
        for when, by_split in facts.get("forgetting", {}).items():
            if by_split:
                splits = {split: _numbers(metrics) for split, metrics in by_split.items()}
                self._compared[when] = splits

    @property
    def experience(self) -> dict[str, Any] | None:
        """Metrics of old and new data before and after an experience; None: there is none."""
        if len(self._compared) < 2:
            return None
        return {
            "number": self._held_out.number,
            "metric": self._goal.metric,
            "old": {when: metrics[OLD] for when, metrics in self._compared.items()},
            "new": {when: metrics[NEW] for when, metrics in self._compared.items()},
        }


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Numbers from JSON, where infinities and NaN are strings."""
    return {name: float(value) for name, value in metrics.items()}
